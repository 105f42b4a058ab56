// npm's oidc-provider as it is, over http and over https on free ports of loopback; support/oidc.py speaks to it.
// Each line of stdin is a JSON document, and one line of JSON answers it: first the options, by the two issuers; then
// {"clients": [...]}, which registers or replaces clients, by null, or {}, by the requests since the last {}.
// Ends when stdin does.

import { X509Certificate, createPublicKey } from 'node:crypto';
import { once } from 'node:events';
import { createServer as createHttp } from 'node:http';
import { createServer as createHttps } from 'node:https';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

console.info = console.warn; // stdout is for the answers; what a quick start is warned of goes to stderr

const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const options = JSON.parse((await lines.next()).value);
const library = pathToFileURL(createRequire(`${options.modules}/`).resolve('oidc-provider'));
const { Provider, errors } = await import(library);
const { createMemoryAdapter } = await import(new URL('adapters/memory_adapter.js', library));

const certificate = (ctx) => ctx.req.socket.getPeerX509Certificate?.();

const SAN = {
  tls_client_auth_san_dns: 'DNS',
  tls_client_auth_san_email: 'email',
  tls_client_auth_san_ip: 'IP Address',
  tls_client_auth_san_uri: 'URI',
};

function certificateSubjectMatches(ctx, property, expected) {
  const { subject, subjectAltName } = certificate(ctx);
  if (property === 'tls_client_auth_subject_dn') {
    return subject.split('\n').reverse().join(',') === expected; // RFC 4514 begins with the last
  }
  return (subjectAltName ?? '').split(', ').includes(`${SAN[property]}:${expected}`);
}

function getResourceServerInfo(ctx, resource) {
  if (!Object.hasOwn(options.resources, resource)) {
    throw new errors.InvalidTarget();
  }
  return options.resources[resource];
}

const clients = new Map(); // the library's memory keeps only the latest thousand rows, whatever they are

function adapter() {
  const memory = createMemoryAdapter();
  return (model) => (model === 'Client' ? { find: async (id) => clients.get(id) } : memory(model));
}

const configuration = {
  clientAuthMethods: [
    'client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt',
    'tls_client_auth', 'self_signed_tls_client_auth', 'none',
  ],
  enabledJWA: {
    clientAuthSigningAlgValues: [
      ...['HS', 'RS', 'PS', 'ES'].flatMap((family) => [256, 384, 512].map((bits) => `${family}${bits}`)),
      'EdDSA', 'Ed25519',
    ],
  },
  clientDefaults: { grant_types: ['client_credentials'], redirect_uris: [], response_types: [] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    mTLS: {
      enabled: true,
      certificateBoundAccessTokens: true,
      selfSignedTlsClientAuth: true,
      tlsClientAuth: true,
      certificateAuthorized: (ctx) => ctx.req.socket.authorized === true,
      certificateSubjectMatches,
      getCertificate: certificate,
    },
    resourceIndicators: { enabled: true, getResourceServerInfo },
  },
  ttl: { ClientCredentials: (ctx, token) => token.resourceServer?.accessTokenTTL ?? options.lifetime },
  ...options.settings,
};

const seen = [];

async function start(scheme, server, discovery) {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  const provider = new Provider(`${scheme}://127.0.0.1:${port}`, {
    adapter: adapter(), discovery: discovery(port), ...configuration,
  });
  const why = (ctx, error) => {
    ctx.state.why = error.error_detail ?? error.error_description ?? error.stack;
  };
  provider.on('grant.error', why);
  provider.on('server_error', why);
  provider.use(async (ctx, next) => {
    await next();
    seen.push({
      scheme,
      method: ctx.method,
      path: ctx.path,
      headers: ctx.headers,
      form: Object.fromEntries(Object.entries(ctx.oidc?.body ?? {}).map(([name, value]) => [name, [value].flat()])),
      certificate: certificate(ctx)?.fingerprint256.replaceAll(':', '').toLowerCase() ?? null,
      status: ctx.status,
      answer: ctx.body ?? null,
      why: ctx.state.why ?? null,
    });
  });
  server.on('request', provider.callback());
  return provider;
}

// A JWK as it is, or {"pem": of a key or a certificate, "kid": …, "alg": …}.
function jwk({ pem, ...more }) {
  if (pem === undefined) {
    return more;
  }
  const chain = pem.includes('BEGIN CERTIFICATE') && { x5c: [new X509Certificate(pem).raw.toString('base64')] };
  return { ...createPublicKey(pem).export({ format: 'jwk' }), ...chain, ...more };
}

const providers = [
  await start('http', createHttp(), () => ({})),
  await start('https', createHttps({ ...options.tls, requestCert: true, rejectUnauthorized: false }), (port) => ({
    mtls_endpoint_aliases: { token_endpoint: `https://localhost:${port}/token` }, // this listener by another name
  })),
];

async function register(several) {
  for (const { client_id: id, jwks, ...metadata } of several) {
    clients.set(id, { client_id: id, ...metadata, ...(jwks && { jwks: { keys: jwks.keys.map(jwk) } }) });
    await Promise.all(providers.map(({ Client }) => Client.find(id))); // throws what is wrong with it
  }
}

await register(options.clients);
say(providers.map(({ issuer }) => issuer));
for await (const line of lines) {
  const { clients: several } = JSON.parse(line);
  say(several ? (await register(several)) ?? null : seen.splice(0));
}
process.exit();
