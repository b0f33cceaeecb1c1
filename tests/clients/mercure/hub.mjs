// A hub that speaks the Mercure protocol as people bring it along, and the tokens for it.
//
// It knows the reference hub's variables and the two shapes of tokens, nothing of the clients.
import { randomUUID } from 'node:crypto';
import { SignJWT } from 'jose';
import { startHub } from '../harness/hub.mjs';

/** The secret that signs publishers' tokens, for clients that make their own. */
export const PUBLISHER = 'a secret of publishers that is long enough';
const SUBSCRIBER = 'a secret of subscribers that is long enough';
const ISSUER = 'https://issuer.example';
const RESOURCE = 'https://hub.example/.well-known/mercure';
const DETAIL = 'https://mercure.rocks/authorization-detail';

const key = (role) => new TextEncoder().encode(role === 'publish' ? PUBLISHER : SUBSCRIBER);

/** A hub with keys of both roles, presence on; `directives` are those of the reference hub. */
export async function startMercureHub(directives = '') {
  const flags = ['--compat', 'mercure', '--resource', RESOURCE, '--heartbeat', '1s', '--retry', '200ms-500ms'];
  const hub = await startHub(flags, 0, {
    MERCURE_PUBLISHER_JWT_KEY: PUBLISHER,
    MERCURE_SUBSCRIBER_JWT_KEY: SUBSCRIBER,
    MERCURE_TRUSTED_ISSUERS: ISSUER,
    MERCURE_EXTRA_DIRECTIVES: `subscriptions\n${directives}`,
  });
  hub.mercure = `${hub.url}/.well-known/mercure`;
  return hub;
}

/** A token of dialect 7 that grants `publish` or `subscribe` on the selectors. */
export const legacyToken = (role, selectors, more = {}) =>
  new SignJWT({ mercure: { [role]: selectors, ...more } }).setProtectedHeader({ alg: 'HS256', typ: 'JWT' }).sign(key(role));

/** An access token of dialect 8 that grants the action on the topics. */
export const accessToken = (action, topics, more = {}) =>
  new SignJWT({ client_id: 'clients', authorization_details: [{ type: DETAIL, actions: [action], topics, ...more }] })
    .setProtectedHeader({ alg: 'HS256', typ: 'at+jwt' })
    .setIssuer(ISSUER)
    .setAudience(RESOURCE)
    .setSubject('clients')
    .setJti(randomUUID())
    .setIssuedAt()
    .setExpirationTime('5m')
    .sign(key(action));
