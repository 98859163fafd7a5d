// Fetches v1/status and shows it. Whatever comes from outside, names of films above all, is set by
// textContent. Rows are kept and changed in place, so that a selection outlives an update.
'use strict';

const EVERY_MS = 1000;
const TIMEOUT_MS = 5000;

const byId = (id) => document.getElementById(id);

// --- Words and numbers -------------------------------------------------------------------------

const clock = (seconds) => {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (value) => String(value).padStart(2, '0');
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
};
const span = (seconds) => {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.round(whole / 60)} min`;
  if (whole < 172800) return `${Math.round(whole / 3600)} h`;
  return `${Math.round(whole / 86400)} days`;
};
const percent = (share) => `${Math.round(share * 100)} %`;
const times = (speed) => `${speed.toFixed(speed < 10 ? 2 : 1)}×`;
const pixels = (size) => size.replace('max ', '≤ ').replace('x', '×');
const timeOfDay = (text) => {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return text;
  const today = date.toDateString() === new Date().toDateString();
  return date.toLocaleString([], today ? { timeStyle: 'short' } : { dateStyle: 'short', timeStyle: 'short' });
};

const BACKENDS = {
  vaapi: ['GPU', 'good'],
  mixed: ['GPU in part', 'warn'],
  software: ['processor', ''],
  pending: ['starting', ''],
};
const STATES = {
  starting: ['starting', ''],
  running: ['running', 'good'],
  paused: ['paused', ''],
  ending: ['ending', ''],
};
const DEVICE_STATES = {
  looking: ['being looked at', ''],
  works: ['works', 'good'],
  suspect: ['a stream failed on it', 'warn'],
  broken: ['doesn’t work', 'bad'],
  gone: ['gone', 'bad'],
};
const ENDINGS = {
  complete: ['finished', 'good'],
  quit: ['stopped', 'good'],
  hook_gone: ['closed by Jellyfin', ''],
  moved: ['goes on with the next gateway', ''],
  declined: ['left to ffmpeg', 'warn'],
  aborted: ['gateway stopped', 'warn'],
  failed_input: ['failed: the file', 'bad'],
  failed_output: ['failed: the output', 'bad'],
  failed_unsupported: ['failed: unsupported', 'bad'],
  failed_device: ['failed: the GPU', 'bad'],
  failed_worker: ['failed: the worker', 'bad'],
  failed_gateway: ['failed: the gateway', 'bad'],
  worker_died: ['worker died', 'bad'],
  worker_hung: ['worker hung', 'bad'],
};
const words = (table, key) => table[key] ?? [String(key).replaceAll('_', ' '), ''];

// What goes in, and what comes out.
const picture = (stream) => {
  if (stream.video_out === '') return ['', 'sound only'];
  const join = (...parts) => parts.filter(Boolean).map(pixels).join(' ');
  const size = stream.size_out === 'source' ? '' : stream.size_out;
  const to = stream.video_out === 'copy' ? 'copied' : join(stream.video_out, size);
  return [join(stream.video_in, stream.size_in), `→ ${to}`];
};
const runsOn = (stream) => {
  if (stream.video_out === 'copy' && stream.backend === 'software') return ['copied', ''];
  return words(BACKENDS, stream.backend);
};
// A live stream is made as fast as it plays; what is slower and has nothing in hand stutters.
const isBehind = (stream) =>
  stream.state === 'running' && !stream.held && !stream.no_room && stream.position_s > 0 && stream.speed < 0.95 && stream.lead_s < 3;
const state = (stream) => {
  if (stream.no_room) return ['waits: disk full', 'bad'];
  if (isBehind(stream)) return ['too slow', 'bad'];
  if (stream.held && stream.state === 'running') return ['waits for others', 'warn'];
  return words(STATES, stream.state);
};

// --- The document ------------------------------------------------------------------------------

const put = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};
const show = (element, visible) => {
  if (element.hidden === visible) element.hidden = !visible;
};
const field = (row, name) => row.querySelector(`[data-field="${name}"]`);
const putField = (row, name, text) => put(field(row, name), text ?? '');
const badge = (row, name, [text, kind]) => {
  const element = field(row, name);
  put(element, text);
  element.className = `badge ${kind}`;
};
const cell = (row, name, text) => {
  const element = field(row, name);
  put(element, text || '–');
  element.toggleAttribute('data-empty', !text);
};

// One row for each item, in order; rows are found again by their key.
const rows = (table, template, items, key, fill) => {
  const body = table.tBodies[0];
  const old = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  const seen = new Set();
  items.forEach((item, index) => {
    let name = String(key(item));
    while (seen.has(name)) name += '+';
    seen.add(name);
    let row = old.get(name);
    old.delete(name);
    if (!row) {
      row = byId(template).content.firstElementChild.cloneNode(true);
      row.dataset.key = name;
    }
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
    fill(row, item);
  });
  old.forEach((row) => row.remove());
  show(table, items.length > 0);
};

const engines = (place, shares) => {
  const names = Object.keys(shares ?? {}).sort();
  place.toggleAttribute('data-empty', names.length === 0);
  if (names.length === 0) return put(place, '–');
  const bars = names.map((name, index) => {
    const old = place.children[index];
    const bar = old?.className === 'engine' ? old : byId('engine').content.firstElementChild.cloneNode(true);
    putField(bar, 'name', name);
    putField(bar, 'share', percent(shares[name]));
    field(bar, 'fill').style.width = `${100 * Math.min(1, shares[name])}%`;
    return bar;
  });
  if (place.children.length !== bars.length || bars.some((bar, index) => place.children[index] !== bar)) {
    place.replaceChildren(...bars);
  }
};

const fillStream = (row, stream) => {
  putField(row, 'item', stream.item || stream.input || 'unnamed');
  field(row, 'item').title = stream.input;
  putField(row, 'where', `${stream.id} · at ${clock(stream.position_s)} · since ${timeOfDay(stream.since)}`);
  const [from, to] = picture(stream);
  putField(row, 'from', from);
  putField(row, 'to', to);
  field(row, 'to').title = stream.description;
  badge(row, 'backend', runsOn(stream));
  putField(row, 'device', stream.backend === 'software' ? '' : stream.device);
  putField(row, 'reason', stream.reason);
  badge(row, 'state', state(stream));
  putField(row, 'horizon', stream.horizon_s === undefined ? '' : `may go to ${clock(stream.horizon_s)}`);
  cell(row, 'speed', stream.speed > 0 ? times(stream.speed) : '');
  cell(row, 'lead', span(stream.lead_s));
  cell(row, 'first', stream.first_segment_s === undefined ? '' : `${stream.first_segment_s.toFixed(2)} s`);
  engines(field(row, 'engines'), stream.gpu_utilization);
};

const fillDevice = (row, device) => {
  putField(row, 'name', device.chip || device.node);
  putField(row, 'node', device.chip ? device.node : '');
  cell(row, 'driver', device.driver);
  badge(row, 'state', words(DEVICE_STATES, device.state));
  putField(row, 'reason', device.reason);
  put(field(row, 'streams'), String(device.streams));
  engines(field(row, 'engines'), device.gpu_utilization);
};

const fillEnded = (row, stream) => {
  putField(row, 'item', stream.item || 'unnamed');
  badge(row, 'how', words(ENDINGS, stream.how));
  putField(row, 'why', stream.why);
  cell(row, 'backend', stream.backend === 'pending' ? '' : words(BACKENDS, stream.backend)[0]);
  cell(row, 'produced', stream.position_s > 0 ? clock(stream.position_s) : '');
  cell(row, 'speed', stream.speed > 0 ? times(stream.speed) : '');
  putField(row, 'when', timeOfDay(stream.ended));
};

// Streams that there is room for, where the gateway says so: for all, or by GPU.
const streamsLeft = (status) => {
  if (typeof status.streams_left === 'number') return status.streams_left;
  const left = status.devices.map((device) => device.streams_left).filter((n) => typeof n === 'number');
  return left.length ? left.reduce((sum, n) => sum + n, 0) : undefined;
};

const render = (status) => {
  const { streams, devices, ended } = status;
  const most = status.max_streams === undefined ? '' : ` / ${status.max_streams}`;
  put(byId('now'), `${streams.length}${most}`);
  const left = streamsLeft(status);
  show(byId('left-tile'), left !== undefined);
  put(byId('left'), left === undefined ? '–' : `${Math.floor(left)} more`);
  const onGpu = streams.filter((stream) => stream.backend === 'vaapi' || stream.backend === 'mixed');
  put(byId('on-gpu'), String(onGpu.length));
  put(byId('warm'), String(status.warm_workers));
  const declined = Object.entries(status.declined);
  put(byId('declined'), String(declined.reduce((sum, [, count]) => sum + count, 0)));
  put(byId('declined-why'), declined.map(([why, count]) => `${why.replaceAll('_', ' ')} ${count}`).join(', '));

  show(byId('nobody'), streams.length === 0);
  rows(byId('streams'), 'stream-row', streams, (stream) => stream.id, fillStream);
  rows(byId('devices'), 'device-row', devices, (device) => device.node, fillDevice);
  show(byId('no-devices'), devices.length === 0);
  put(byId('no-devices'), `No GPU is used, streams run on the processor: ${status.no_gpu ?? 'none is there'}.`);
  rows(byId('ended'), 'ended-row', ended, (stream) => `${stream.id ?? stream.item} ${stream.ended}`, fillEnded);
  show(byId('none-ended'), ended.length === 0);

  const broken = devices.length > 0 && status.no_gpu;
  const problem = status.not_ready
    ? `New streams go to the real ffmpeg: ${status.not_ready}.`
    : broken ? `No stream gets a GPU: ${status.no_gpu}.` : '';
  put(byId('problem'), problem);
  show(byId('problem'), problem !== '');
  put(byId('version'), status.version);
  put(byId('protocol'), String(status.protocol));
  put(byId('uptime'), span(status.uptime_s));
  document.title = streams.length ? `(${streams.length}) Rendergate` : 'Rendergate';
};

// --- Keeping up --------------------------------------------------------------------------------

let timer;
let lastSeen;

const say = (name, text) => {
  document.body.dataset.state = name;
  put(byId('link-text'), text);
};

const lose = (error) => {
  const since = lastSeen ? ` What you see is from ${lastSeen.toLocaleTimeString()}.` : '';
  put(byId('lost'), `The gateway can’t be reached.${since} Trying again every second.`);
  byId('lost').title = String(error);
  show(byId('lost'), true);
  say('lost', 'not reachable');
};

const update = async () => {
  clearTimeout(timer);
  if (document.hidden) return say('hidden', 'paused');
  try {
    const answer = await fetch('v1/status', { cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!answer.ok) throw new Error(`HTTP status ${answer.status}`);
    render(await answer.json());
    lastSeen = new Date();
    show(byId('lost'), false);
    say('live', 'live');
  } catch (error) {
    lose(error);
  }
  clearTimeout(timer);
  timer = setTimeout(update, EVERY_MS);
};

document.addEventListener('visibilitychange', update);
update();
