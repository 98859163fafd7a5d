// A browser that does as it is told, one JSON object a line on stdin; each is answered by one on stdout.
//
//   { do: 'open', url, width, height, dark, status }   status: in place of the gateway's v1/status
//   { do: 'until', state }          waits for the page's state
//   { do: 'hide', hidden }          as if the tab went to the background, or came back
//   { do: 'pass', ms }              lets that much of the page's time pass, at once
//   { do: 'see', shot }             what is to be seen; `shot` is a file for a picture of it
//
// RENDERGATE_BROWSER names the folder that has playwright-core.

import { createInterface } from 'node:readline';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const { chromium } = createRequire(join(process.env.RENDERGATE_BROWSER, 'x.js'))('playwright-core');
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});

let tab;
let errors;
let asked;
let elsewhere;

const orders = {
  async open({ url, width, height, dark, status }) {
    await tab?.context().close();
    [errors, asked, elsewhere] = [[], 0, []];
    const context = await browser.newContext({
      viewport: { width, height }, colorScheme: dark ? 'dark' : 'light', locale: 'en-GB', timezoneId: 'UTC',
    });
    tab = await context.newPage();
    tab.setDefaultTimeout(20000);
    tab.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
    tab.on('pageerror', (error) => errors.push(String(error)));
    tab.on('dialog', (dialog) => { errors.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
    tab.on('request', (request) => {
      if (!request.url().startsWith(url)) elsewhere.push(request.url());
      if (request.url().endsWith('v1/status')) asked += 1;
    });
    if (status) await tab.route('**/v1/status', (route) => route.fulfill({ json: status }));
    // Timers run as ever until time is told to pass.
    await tab.clock.install();
    await tab.goto(url);
    return {};
  },
  async until({ state }) {
    await tab.waitForSelector(`body[data-state="${state}"]`);
    return {};
  },
  async hide({ hidden }) {
    await tab.evaluate((hidden) => {
      Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });
      document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
    return {};
  },
  async pass({ ms }) {
    await tab.clock.runFor(ms);
    return {};
  },
  async see({ shot }) {
    if (shot) await tab.screenshot({ path: shot, fullPage: true });
    const seen = await tab.evaluate(() => {
      const visible = (element) => element.checkVisibility();
      const table = (id) => [...document.getElementById(id).tBodies[0].rows].filter(visible)
        .map((row) => [...row.cells].map((cell) => cell.innerText.trim().replace(/\s*\n\s*/g, ' | ')));
      const wide = document.documentElement;
      return {
        state: document.body.dataset.state, title: document.title, text: document.body.innerText,
        streams: table('streams'), devices: table('devices'), ended: table('ended'),
        scroll_width: wide.scrollWidth, client_width: wide.clientWidth,
        bars: [...document.querySelectorAll('#streams .bar')].map((bar) => bar.firstElementChild.offsetWidth / bar.offsetWidth),
        images: document.images.length, scripts: document.scripts.length, ran: String(window.ran ?? ''),
        unlabelled: [...document.querySelectorAll('td:not([data-label])')].length,
      };
    });
    return { ...seen, errors, asked, elsewhere };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  let answer;
  try {
    answer = await orders[order.do](order);
  } catch (error) {
    answer = { failed: String(error), errors };
  }
  console.log(JSON.stringify(answer));
}
await browser.close();
