// npm `event-source-polyfill`: the interface of the browser; its cursor travels as the query name `lastEventId` (S-18).
import polyfill from 'event-source-polyfill';
import { listen, url } from './report.mjs';

listen(new polyfill.EventSourcePolyfill(url));
