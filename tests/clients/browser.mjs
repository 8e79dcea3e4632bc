// Holds the conversation of browser.html in a headless Chromium, against a running gateway.
//
//     npm install playwright-core
//     node browser.mjs ws://127.0.0.1:7117/gateway
//
// The address may also come as GATEWAY_URL, Chromium's path as CHROMIUM. The page gets the
// gateway's own origin, as a page that the gateway serves would have: the request for it is
// answered here, before it leaves the browser. Exit code 1 where the conversation failed.

import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const GATEWAY = process.argv[2] ?? process.env.GATEWAY_URL;
const PAGE = new URL('/conversation', GATEWAY.replace(/^ws/, 'http')).href;
const TIMEOUT = 120_000;
const QUIET = [
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-gpu',
  '--disable-quic',
  '--disable-sync',
  '--no-first-run',
];

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: QUIET,
  timeout: TIMEOUT,
});
try {
  // Chromium asks the user before a page that came from elsewhere may reach this machine; for all
  // it knows, this one did.
  const context = await browser.newContext({ permissions: ['local-network-access'] });
  const page = await context.newPage();
  page.on('console', (line) => (line.type() === 'error' ? console.error : console.log)(`browser: ${line.text()}`));
  page.on('pageerror', (error) => console.error(`browser: ${error.stack}`));
  const path = fileURLToPath(new URL('browser.html', import.meta.url));
  await page.route(PAGE, (route) => route.fulfill({ path, contentType: 'text/html' }));
  await page.goto(PAGE);
  const verdict = await page.waitForFunction(() => 'passed' in window && [window.passed], null, { timeout: TIMEOUT });
  const [passed] = await verdict.jsonValue();
  process.exitCode = passed ? 0 : 1;
} finally {
  await browser.close();
}
