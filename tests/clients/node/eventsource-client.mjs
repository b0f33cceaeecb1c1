// npm `eventsource-client`: an asynchronous iterator, reconnecting by itself.
import { createEventSource } from 'eventsource-client';
import { failed, opened, received, url } from './report.mjs';

const source = createEventSource({ url, onConnect: opened, onDisconnect: () => failed('disconnected') });
for await (const { event, id, data } of source) received(event ?? 'message', id, data);
