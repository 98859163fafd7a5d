// Plays a playlist in headless Chromium with hls.js, from one time to another, and reports what
// happened as one line of JSON.
//
//   node play.mjs FOLDER PLAYLIST FROM TO
//
// Exit status 0 if playback reached TO without a fatal error, 1 otherwise.

import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { readFile } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import { chromium } from 'playwright-core';

const [folder, playlist, from, to] = process.argv.slice(2);
if (!to) {
  console.error('usage: node play.mjs FOLDER PLAYLIST FROM TO');
  process.exit(2);
}
const types = { '.ts': 'video/mp2t', '.mp4': 'video/mp4', '.m3u8': 'application/vnd.apple.mpegurl' };
const hls = await readFile(createRequire(import.meta.url).resolve('hls.js/dist/hls.min.js'));
const page = '<!doctype html><title>seam</title><video muted width=640></video><script src=/hls.js></script>';

const server = createServer(async (request, response) => {
  const name = basename(decodeURIComponent(new URL(request.url, 'http://localhost').pathname));
  if (name === '') return response.setHeader('content-type', 'text/html').end(page);
  if (name === 'hls.js') return response.setHeader('content-type', 'text/javascript').end(hls);
  try {
    const body = await readFile(join(folder, name));
    response.setHeader('content-type', types[extname(name)] ?? 'application/octet-stream').end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((done) => server.listen(0, '127.0.0.1', done));
const origin = `http://127.0.0.1:${server.address().port}`;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--autoplay-policy=no-user-gesture-required',
  ],
});
const report = await (async () => {
  const tab = await browser.newPage();
  await tab.goto(origin);
  return tab.evaluate(async ({ url, from, to }) => {
    const video = document.querySelector('video');
    const errors = [];
    const gaps = [];
    const player = new Hls({ startPosition: from, enableWorker: false });
    player.on(Hls.Events.ERROR, (_, data) => {
      errors.push({ fatal: data.fatal, details: data.details, reason: data.reason ?? data.error?.message });
    });
    player.loadSource(url);
    player.attachMedia(video);
    await new Promise((done) => player.once(Hls.Events.MANIFEST_PARSED, done));
    await video.play();
    let last = -1;
    let since = performance.now();
    let longestStill = 0;
    const deadline = performance.now() + (to - from) * 1000 + 30000;
    while (video.currentTime < to && performance.now() < deadline && !errors.some((e) => e.fatal)) {
      await new Promise((done) => setTimeout(done, 50));
      if (video.currentTime !== last) {
        if (last >= 0 && video.currentTime - last > 0.5) gaps.push([last, video.currentTime]);
        last = video.currentTime;
        since = performance.now();
      } else if (last > from) {
        longestStill = Math.max(longestStill, performance.now() - since);
      }
    }
    const quality = video.getVideoPlaybackQuality();
    const ranges = [...Array(video.buffered.length).keys()]
      .map((n) => [video.buffered.start(n), video.buffered.end(n)]);
    return {
      reached: video.currentTime, errors, gaps, longestStillMs: Math.round(longestStill),
      frames: quality.totalVideoFrames, dropped: quality.droppedVideoFrames, buffered: ranges,
      size: [video.videoWidth, video.videoHeight], mediaError: video.error?.message ?? null,
    };
  }, { url: `${origin}/${playlist}`, from: Number(from), to: Number(to) });
})();
await browser.close();
server.close();
const ok = report.reached >= Number(to) && report.errors.length === 0 && report.mediaError === null;
console.log(JSON.stringify({ ok, ...report }));
process.exit(ok ? 0 : 1);
