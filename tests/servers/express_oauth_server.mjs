// npm's @node-oauth/express-oauth-server in an express application, over http on a free port of loopback.
// The first line of stdin is JSON: {"modules": the directory of node_modules, "clients": {id: secret}, "scopes": [...],
// "lifetime": seconds}. Prints its port when it is ready; ends when stdin does.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const options = JSON.parse((await lines.next()).value);
const require = createRequire(`${options.modules}/`);
const express = require('express');
const OAuthServer = require('@node-oauth/express-oauth-server');

// What the library asks of the application that it is part of.
const model = {
  getClient: (id, secret) =>
    Object.hasOwn(options.clients, id) && options.clients[id] === secret && { id, grants: ['client_credentials'] },
  getUserFromClient: (client) => ({ id: client.id }),
  validateScope: (_user, _client, scope) =>
    (scope ?? options.scopes).every((one) => options.scopes.includes(one)) && (scope ?? options.scopes),
  saveToken: (token, client, user) => ({ ...token, client, user }),
};

const app = express();
app.use(express.urlencoded({ extended: false }));
app.post('/token', new OAuthServer({ model, accessTokenLifetime: options.lifetime }).token());
const server = app.listen(0, '127.0.0.1', () => process.stdout.write(`${server.address().port}\n`));
await lines.next();
process.exit();
