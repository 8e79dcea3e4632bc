// Shows in a headless Chromium which web pages can use a gateway: one that the gateway's own host
// served, one of a listed origin, and one of any other.
//
//     npm install playwright-core
//     node origins.mjs ws://127.0.0.1:7117/gateway
//
// The address may also come as GATEWAY_URL, Chromium's path as CHROMIUM. The gateway is started with
// credentials, whose token (any name, `api = "read"`) is in GATEWAY_TOKEN, and with `allowed_origins`
// of `same-host` and the origin in ALLOWED_ORIGIN. Pages are served here, before a request leaves the
// browser. Exit code 1 where a page could do what it should not, or could not what it should.

import { deepStrictEqual } from 'node:assert';
import { chromium } from 'playwright-core';

const GATEWAY = process.argv[2] ?? process.env.GATEWAY_URL;
const TOKEN = process.env.GATEWAY_TOKEN;
const ALLOWED = process.env.ALLOWED_ORIGIN;
const API = new URL('/api/v1/services', GATEWAY.replace(/^ws/, 'http')).href;
const METRICS = new URL('/metrics', API).href;
const TIMEOUT = 60_000;
const QUIET = [
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-gpu',
  '--disable-quic',
  '--disable-sync',
  '--no-first-run',
];

/** What a page of each origin can do. */
const EXPECTED = [
  { origin: new URL(API).origin, socket: 'accepted', api: 'read', door: 'read' },
  { origin: ALLOWED, socket: 'accepted', api: 'read', door: 'read' },
  { origin: 'http://other.localhost', socket: 'refused', api: 'unreadable', door: 'unreadable' },
  { origin: `${ALLOWED}:8080`, socket: 'refused', api: 'unreadable', door: 'unreadable' },
];

/** Runs in the page: tries the WebSocket, and reads an answer that needs the token, and one that needs none. */
async function tryAll({ gateway, api, token, name }) {
  const socket = new Promise((resolve) => {
    const socket = new WebSocket(gateway);
    socket.onopen = () => {
      socket.send(JSON.stringify({ s: name, t: 'gateway:opcode', d: { opcode: 0, token } }));
    };
    socket.onmessage = ({ data }) => {
      resolve(JSON.parse(data).d.opcode === 1 ? 'accepted' : data);
      socket.close(4000);
    };
    socket.onclose = () => resolve('refused');
  });
  const read = async (url, options) => {
    try {
      const response = await fetch(url, options);
      return response.ok && (await response.text()).length > 0 ? 'read' : `status ${response.status}`;
    } catch (error) {
      return error instanceof TypeError ? 'unreadable' : String(error);
    }
  };
  const door = new URL('/healthz', api).href;
  const headers = { Authorization: `Bearer ${token}` };
  return { socket: await socket, api: await read(api, { headers }), door: await read(door) };
}

/** How many requests the gateway itself has refused because of the page that they came from. */
async function refusedByGateway() {
  const response = await fetch(METRICS, { headers: { Authorization: `Bearer ${TOKEN}` } });
  const line = /^gateway_turned_away_total\{.*foreign_page.*\} (\d+)$/m.exec(await response.text());
  return Number(line?.[1] ?? NaN);
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: QUIET,
  timeout: TIMEOUT,
});
try {
  for (const [number, { origin, ...expected }] of EXPECTED.entries()) {
    // Without it Chromium itself would keep some pages from this machine, and the gateway have no part.
    const context = await browser.newContext({ permissions: ['local-network-access'] });
    const page = await context.newPage();
    page.setDefaultTimeout(TIMEOUT);
    const address = `${origin}/page`;
    await page.route(address, (route) => route.fulfill({ body: '<!doctype html>', contentType: 'text/html' }));
    await page.goto(address);
    const before = await refusedByGateway();
    const found = await page.evaluate(tryAll, { gateway: GATEWAY, api: API, token: TOKEN, name: `page-${number}` });
    deepStrictEqual(found, expected, `a page of ${origin}`);
    // The WebSocket, what the page asks for, and the question before (preflight) that a token takes.
    const refused = (await refusedByGateway()) - before;
    deepStrictEqual(refused, expected.socket === 'refused' ? 3 : 0, `refusals of a page of ${origin}`);
    console.log(`${origin}: WebSocket ${found.socket}, API ${found.api}`);
    await context.close();
  }
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await browser.close();
}
