// The page of an administrator, as the package's own readme sets one up: the whole interface from one component.
//
// What it is given comes in the address, so that one bundle serves every case.
import { HydraAdmin } from '@api-platform/admin';
import { createElement } from 'react';
import { createRoot } from 'react-dom/client';

const mercure = JSON.parse(new URLSearchParams(location.search).get('mercure') ?? 'true');
createRoot(document.querySelector('#root')).render(createElement(HydraAdmin, { entrypoint: `${location.origin}/api`, mercure, disableTelemetry: true }));
