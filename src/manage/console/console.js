/* Asks the server that it comes from, and nobody else. Whatever clients have made up (paths, users, topics, agents) becomes text
   and nothing else: nothing here makes markup of text, and the policy of the page would not let it. */
const $ = id => document.getElementById(id);
const KEY = 'switchboard-token';
const SPAN = 300_000;             // of the plots, in ms
const GAP = 4_500;                // between two values: longer, and nobody knows what was there
const SILENCE = 6_000;            // there is a value each second: after this the link is cut
const PATIENCE = 15_000;          // for an answer
const FIRST_DELAY = 1_000, MAX_DELAY = 15_000;
const HIDDEN = 60_000;            // a tab that nobody has seen for so long asks for nothing
const MOST = 10_000;              // connections that are loaded, to be searched and sorted
const LOADED = 500, FEWEST = 20;  // at a time: as many as come within so many ms
const WITHIN = 2_000;
const PACE = 400, REST = 2_000;   // between two such pages, and between two rounds
const MAX_REASON = 123;

const now = () => performance.now();
const wide = matchMedia('(min-width: 60rem)');   // the side is beside the table
const roomy = matchMedia('(min-width: 40rem)');  // the table has all of its columns
const shown = () => wide.matches ? 50 : 20; // rows of the table
const hovers = matchMedia('(hover: hover)');
const format = new Intl.NumberFormat('en');
const number = n => format.format(n);
const count = (n, word) => `${number(n)} ${word}${n === 1 ? '' : 's'}`;
const rate = n => n < 10 ? n.toFixed(1).replace('.0', '') : number(Math.round(n));
const bytes = n => {
  const unit = n < 1024 ? 0 : Math.min(4, Math.floor(Math.log2(n) / 10));
  const value = n / 1024 ** unit;
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][unit]}`;
};
const millis = n => n == null ? '–' : n < 1000 ? `${n < 10 ? n.toFixed(1) : Math.round(n)} ms` : `${(n / 1000).toFixed(1)} s`;
const age = ms => {
  const s = Math.max(0, Math.floor(ms / 1000)), m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
  return d ? `${d} d ${h % 24} h` : h ? `${h} h ${m % 60} min` : m ? `${m} min` : `${s} s`;
};
const local = date => new Date(date - date.getTimezoneOffset() * 60000).toISOString();
const clock = time => local(new Date(time)).slice(11, 19);
const dated = text => local(new Date(text)).slice(0, 19).replace('T', ' ');
const byteLength = text => new TextEncoder().encode(text).length;
const element = (name, className = '', text = '') => {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.textContent = text;
  return node;
};
/* Only a change is written: the same text again would be laid out, and spoken, again. */
function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
/* What would be invisible, or turn the direction of what follows, is shown by its number: else two names would look alike. Emoji
   and Persian need their joiners. */
const HIDDEN_IN_NAMES = /[\p{Cc}\p{Zl}\p{Zp}\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/gu;
const visible = text => text.replace(HIDDEN_IN_NAMES, c => `\\u{${c.codePointAt(0).toString(16)}}`);
/* What is chosen in a list is meant as it is, also where a field drops a part of it, such as a line feed, until somebody types. */
const chosen = {};
function choose(field, name) {
  chosen[field] = name;
  $(field).value = visible(name);
}
const meant = field => chosen[field] ?? $(field).value;
function flag(node, name, on) {
  if (on) node.setAttribute(name, on === true ? '' : on);
  else node.removeAttribute(name);
}
const pause = (ms, signal) => new Promise((resolve, reject) => {
  const stop = () => { clearTimeout(timer); reject(signal.reason); };
  if (signal?.aborted) return reject(signal.reason);
  const timer = setTimeout(() => { signal?.removeEventListener('abort', stop); resolve(); }, ms);
  signal?.addEventListener('abort', stop, { once: true });
});

/* Requests */
let token = sessionStorage.getItem(KEY) ?? '', access = '';

class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

/* Paths have no slash before them: a proxy may have the console in a folder. */
async function ask(path, { method = 'GET', body, signal, patience = PATIENCE } = {}) {
  const headers = token ? { Authorization: 'Bearer ' + token } : {};
  const ends = [signal, patience && AbortSignal.timeout(patience)].filter(Boolean);
  const response = await fetch(path, { method, body, headers, signal: AbortSignal.any(ends), cache: 'no-store', credentials: 'omit' });
  if (response.ok) return response;
  const text = await response.text();
  let message = `${response.status} ${response.statusText}`;
  try { message = JSON.parse(text).message ?? message; } catch { /* a proxy's page */ }
  throw new Refused(response.status, message);
}
const json = async (path, options) => (await ask(path, options)).json();
const query = values => {
  const pairs = Object.entries(values).filter(([, value]) => value !== undefined && value !== null);
  return pairs.length ? '?' + new URLSearchParams(pairs) : '';
};
const part = encodeURIComponent;
const NO_ANSWER = 'The server does not answer.';
const explain = error => error instanceof Refused ? error.message : NO_ANSWER;

/* Server-Sent Events. `EventSource` cannot send a token. */
async function* events(path, signal) {
  const response = await ask(path, { signal, patience: 0 });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const pieces = (rest + value).split('\n\n');
      rest = pieces.pop();
      for (const piece of pieces) {
        const [name, data] = ['event: ', 'data: '].map(field =>
          piece.split('\n').find(line => line.startsWith(field))?.slice(field.length));
        if (data) yield { name, data: JSON.parse(data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // it is broken already
  }
}

/* The link: who we are here, and then a value each second. */
const state = { text: '', until: 0, link: 0 };
let stream = null, listens = false, heard = 0, hiding = 0, wake = () => {};

function showLink(link, text) {
  Object.assign(state, { link, text });
  $('link').dataset.state = link;
  put($('link-text'), text);
  tick();
}
function showView(view) {
  $('ask').hidden = view !== 'ask';
  $('console').hidden = $('facts').hidden = view !== 'console';
  $('forget').hidden = !token;
  $('read-only').hidden = access !== 'read';
  document.body.dataset.access = access;
}
async function follow() {
  let delay = FIRST_DELAY;
  for (;;) {
    stream = new AbortController();
    let why = NO_ANSWER;
    try {
      state.until = 0;
      ({ access } = await json('@access', { signal: stream.signal, patience: SILENCE }));
      if (access === 'none') {
        await askForToken(token ? 'This token is not taken any more.' : '');
        continue;
      }
      showView('console');
      heard = now();
      listens = true;
      list.start();
      topics.start();
      nodes.start();
      for await (const { name, data } of events('@stats', stream.signal)) {
        heard = now();
        delay = FIRST_DELAY;
        if (name === 'stats') take(data);
      }
    } catch (error) {
      if (error instanceof Refused && error.status === 401) {
        await askForToken('This token is wrong.');
        continue;
      }
      if (document.hidden && stream.signal.aborted) {
        showLink(2, 'paused');
        await new Promise(resolve => { wake = resolve; });
        continue;
      }
      why = explain(error);
    } finally {
      listens = false;
    }
    const wait = delay * (0.5 + Math.random() / 2);
    delay = Math.min(MAX_DELAY, delay * 2);
    state.until = now() + wait;
    showLink(0, why);
    await Promise.race([pause(wait), new Promise(resolve => { wake = resolve; })]);
  }
}
/* Until one is there that is taken. */
async function askForToken(why) {
  for (const part of [list, topics, nodes]) part.stop();
  sessionStorage.removeItem(KEY);
  token = access = '';
  showView('ask');
  showLink(2, 'a token is needed');
  put($('token-error'), why);
  $('token').focus();
  while (!access) {
    await new Promise(resolve => { wake = resolve; });
    if (document.hidden || !token) continue;
    try {
      access = (await json('@access')).access;
      sessionStorage.setItem(KEY, token);
      $('token').value = '';
    } catch (error) {
      put($('token-error'), error.status === 401 ? 'This token is wrong.' : explain(error));
      token = '';
      $('token').select();
    }
    for (const field of $('ask-form').elements) field.disabled = false;
    if (!access) $('token').focus();
  }
}
onSubmit('ask-form', () => {
  const given = $('token').value.trim();
  put($('token-error'), given ? '' : 'The token is missing.');
  if (!given) return;
  token = given;
  for (const field of $('ask-form').elements) field.disabled = true;
  wake();
});
$('forget').addEventListener('click', () => {
  sessionStorage.removeItem(KEY);
  location.reload();
});
addEventListener('online', () => wake());
document.addEventListener('visibilitychange', () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(() => stream?.abort(), HIDDEN);
  else { wake(); draw(); }
});
function tick() {
  if (listens && now() - heard > SILENCE) stream.abort();
  const wait = state.until - now();
  const more = state.link === 0 && state.until ? wait > 0 ? `again in ${Math.ceil(wait / 1000)} s` : 'trying again' :
    state.link === 1 ? [location.host, before.version, ...standing(before)].join(' · ') : '';
  put($('link-more'), more);
  if (samples.length && now() - heard > 1500) draw();
}
setInterval(tick, 500);

/* Which node of a cluster it is, whose own numbers these are */
const standing = ({ cluster, node, nodes }) => [
  ...cluster ? [`node ${node} of ${nodes}`] : [], ...cluster === 'unreachable' ? ['Redis is not reached'] : [],
];
/* Without Redis, it lists its own connections. */
const alone = () => before?.cluster === 'unreachable' && before;
function showCluster({ cluster }) {
  flag(document.body, 'data-many', !!cluster);
  $('tab-nodes').hidden = $('by-node').hidden = !cluster;
  if (!cluster && !$('nodes').hidden) openTab('topics');
}

/* What the server says of itself */
const samples = [];
let before = null;

function take(stats) {
  const seconds = before ? (Date.parse(stats.time) - Date.parse(before.time)) / 1000 : 0;
  const anew = before && stats.uptimeSeconds < before.uptimeSeconds;
  /* Totals tell rates, unless it is another process now, or something is missing between them. */
  const known = seconds > 0 && seconds * 1000 < GAP && !anew;
  const per = name => known ? Math.max(0, stats[name] - before[name]) / seconds : null;
  const trip = stats.roundTripMillis;
  samples.push({
    at: Date.now(), connections: stats.connections, out: per('messagesOut'), in: per('messagesIn'),
    pushes: per('pushes'), p50: trip?.p50 ?? null, p99: trip?.p99 ?? null, stats,
  });
  while (samples.length > 2 && samples[1].at < Date.now() - SPAN) samples.shift();
  before = stats;
  showCluster(stats);
  if (state.link !== 1) showLink(1, 'live');
  put($('uptime'), age(stats.uptimeSeconds * 1000));
  put($('memory'), stats.residentBytes == null ? '–' : bytes(stats.residentBytes));
  put($('threads'), stats.threads == null ? '–' : number(stats.threads));
  put($('queued'), bytes(stats.queuedBytes));
  put($('refused'), number(stats.refused));
  put($('shared'), number(stats.shared));
  put($('bytes-in'), bytes(stats.bytesIn));
  put($('bytes-out'), bytes(stats.bytesOut));
  showAudience();
  document.title = `${number(stats.connections)} · Switchboard console`;
  draw();
}

/* Plots: each a canvas, drawn anew once a second and while somebody points at it. */
const PLOTS = {
  connections: { lines: ['connections'], unit: number, whole: true, note: ({ stats }) => `${stats.cluster ? `on node ${stats.node}, ` : ''}of ${number(stats.maxConnections)} at most` },
  messages: { lines: ['out', 'in'], unit: rate },
  pushes: { lines: ['pushes'], unit: rate, note: ({ stats }) => `${number(stats.pushes)} in all` },
  trips: { lines: ['p50', 'p99'], unit: millis },
};
let pointed = 0, drawing = 0;

for (const figure of document.querySelectorAll('[data-plot]')) {
  const plot = PLOTS[figure.dataset.plot];
  Object.assign(plot, {
    canvas: figure.querySelector('canvas'), values: figure.querySelectorAll('b'),
    small: plot.note && figure.querySelector('.now > small'),
  });
  const point = event => {
    const box = plot.canvas.getBoundingClientRect();
    pointed = Date.now() - SPAN * (1 - (event.clientX - box.left) / box.width);
    draw();
  };
  plot.canvas.addEventListener('pointermove', point);
  plot.canvas.addEventListener('pointerdown', point);
  plot.canvas.addEventListener('pointerleave', () => { pointed = 0; draw(); });
  new ResizeObserver(draw).observe(plot.canvas);
}
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);

function draw() {
  drawing = drawing || requestAnimationFrame(() => {
    drawing = 0;
    if (document.hidden || !samples.length || $('console').hidden) return;
    const end = Date.now();
    const near = (a, b) => Math.abs(a.at - pointed) < Math.abs(b.at - pointed) ? a : b;
    const one = pointed ? samples.reduce(near) : samples.at(-1);
    for (const plot of Object.values(PLOTS)) drawPlot(plot, end, one);
  });
}
function drawPlot({ canvas, lines, unit, whole, values, small, note }, end, one) {
  lines.forEach((line, i) => put(values[i], one[line] == null ? '–' : unit(one[line])));
  if (small) put(small, pointed ? 'at ' + clock(one.at) : note(one));
  const { width, height } = canvas.getBoundingClientRect(), dots = devicePixelRatio;
  const [w, h] = [Math.round(width * dots), Math.round(height * dots)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const style = getComputedStyle(canvas);
  const colors = [style.color, style.caretColor], grid = style.borderTopColor, ink = style.outlineColor;
  const g = canvas.getContext('2d');
  g.setTransform(dots, 0, 0, dots, 0, 0);
  g.clearRect(0, 0, width, height);
  const top = 12, bottom = height - 15;
  const most = nice(samples.reduce((most, sample) => Math.max(most, ...lines.map(line => sample[line] ?? 0)), 0), whole);
  const x = at => width * (1 - (end - at) / SPAN), y = value => bottom - (bottom - top) * value / most;
  /* Where there was no value for long, also up to this moment */
  g.fillStyle = style.textDecorationColor;
  samples.forEach((sample, i) => {
    const next = samples[i + 1]?.at ?? end;
    if (next - sample.at > GAP) g.fillRect(x(sample.at), top, x(next) - x(sample.at), bottom - top);
  });
  g.fillStyle = grid;
  g.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  for (const value of [0, most / 2, most]) {
    g.fillRect(0, Math.round(y(value) * dots) / dots, width, Math.max(1, Math.floor(dots)) / dots); // whole dots are crisp
  }
  lines.forEach((line, i) => {
    g.strokeStyle = g.fillStyle = colors[i];
    g.lineWidth = 1.75;
    g.lineJoin = 'round';
    for (const run of runs(line)) {
      g.beginPath();
      run.forEach(sample => g.lineTo(x(sample.at), y(sample[line])));
      if (run.length === 1) g.lineTo(x(run[0].at) + 1, y(run[0][line]));
      g.stroke();
      if (i) continue;
      g.lineTo(x(run.at(-1).at), bottom);
      g.lineTo(x(run[0].at), bottom);
      g.globalAlpha = 0.1;
      g.fill();
      g.globalAlpha = 1;
    }
  });
  g.fillStyle = ink;
  g.textBaseline = 'alphabetic';
  g.fillText(unit(most), 0, top - 3);
  g.fillText('5 min ago', 0, height - 2);
  g.textAlign = 'right';
  g.fillText('now', width, height - 2);
  g.textAlign = 'left';
  if (!pointed) return;
  g.strokeStyle = ink;
  g.lineWidth = 1;
  g.beginPath();
  g.moveTo(x(one.at), top);
  g.lineTo(x(one.at), bottom);
  g.stroke();
  lines.forEach((line, i) => {
    if (one[line] == null) return;
    g.fillStyle = colors[i];
    g.beginPath();
    g.arc(x(one.at), y(one[line]), 3, 0, 2 * Math.PI);
    g.fill();
  });
}
/* The parts of a line without a gap in them */
function runs(line) {
  const all = [];
  let last = null;
  for (const sample of samples) {
    if (sample[line] == null) last = null;
    else {
      if (!last || sample.at - last.at > GAP) all.push([]);
      all.at(-1).push(last = sample);
    }
  }
  return all;
}
/* A round number above it */
function nice(value, whole) {
  if (value <= 0) return whole ? 10 : 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const most = [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find(step => step * power >= value * 1.05) ?? 20;
  return whole ? Math.max(10, most * power) : most * power;
}

/* Connections: all of them are loaded, page by page, again and again; the table shows a few of them. */
const COLUMNS = [
  { key: 'id', title: 'ID', first: 1, className: 'mono far', text: row => row.id.slice(0, 8) },
  { key: 'path', title: 'Path', first: 1, text: row => visible(row.path) },
  { key: 'user', title: 'User', first: 1, text: row => visible(row.user ?? '') },
  { key: 'address', title: 'Address', first: 1, className: 'far', text: row => row.address ?? '' },
  { key: 'age', title: 'Open for', first: 1, className: 'number', text: row => age(Date.now() + row.age) },
  { key: 'in', title: 'In', first: -1, className: 'number far', text: row => number(row.in) },
  { key: 'out', title: 'Out', first: -1, className: 'number', text: row => number(row.out) },
  { key: 'queued', title: 'Queued', first: -1, className: 'number far', text: row => row.queued ? bytes(row.queued) : '' },
  { key: 'trip', title: 'Trip', first: -1, className: 'number far', text: row => row.trip == null ? '' : millis(row.trip) },
  { key: 'node', title: 'Node', first: 1, className: 'number far many', text: row => String(row.node) },
];
/* What goes on until it is stopped. */
const runner = {
  running: null,
  start() {
    if (this.running) return;
    const running = this.running = new AbortController();
    this.run(running.signal).catch(() => {}); // stopped
  },
  stop() {
    this.running?.abort();
    this.running = null;
  },
  again() {
    this.stop();
    this.start();
  },
};

const list = {
  ...runner,
  rows: new Map(), shown: [], matching: [], page: 0, sort: { key: 'age', way: 1 }, words: [], filter: {},
  whole: false, missing: false, at: 0, failed: '', rendered: 0, step: 100,

  /* Something else is asked for: what is there is forgotten. */
  restart(filter) {
    this.stop();
    this.filter = filter;
    this.rows.clear();
    this.whole = false;
    this.at = this.page = 0;
    this.render(true);
    this.start();
  },
  async run(signal) {
    for (;;) {
      const begun = now();
      try {
        await this.round(signal);
        this.at = Date.now();
        this.failed = '';
      } catch (error) {
        if (signal.aborted) return;
        this.step = FEWEST;
        this.failed = error.name === 'TimeoutError' && state.link === 1 ? 'This network is slow: fewer are asked for at a time.' : explain(error);
      }
      this.render();
      /* Ages grow by themselves; counts are worth a look now and then. */
      while (document.hidden || now() - begun < REST || state.link !== 1) await pause(250, signal);
    }
  },
  async round(signal) {
    const first = !this.at, seen = new Set();
    let after, missing = false;
    do {
      const asked = now(), limit = this.step;
      const page = await json('@connections' + query({ ...this.filter, node: alone()?.node, after, limit }), { signal });
      const took = now() - asked;
      this.step = Math.round(Math.max(FEWEST, Math.min(LOADED, 4 * limit, limit * WITHIN / took)));
      for (const connection of page.connections) {
        seen.add(connection.id);
        this.rows.set(connection.id, Object.assign(this.rows.get(connection.id) ?? {}, brief(connection)));
      }
      after = page.next;
      missing ||= page.unreachable;
      this.whole = !after;
      if (now() - this.rendered > (first ? 150 : 900)) this.render();
      if (after) await pause(first ? 0 : Math.max(PACE, took), signal); // half of the network is for others
    } while (after && seen.size < MOST);
    this.missing = missing;
    for (const [id, row] of this.rows) {
      if (!seen.has(id)) { row.gone = true; this.rows.delete(id); }
    }
  },
  /* The rows to be shown, in their order. */
  choose() {
    const { key, way } = this.sort, { words } = this;
    const all = [...this.rows.values()];
    this.matching = words.length ? all.filter(row => words.every(word => (row.hay ??= hay(row)).includes(word))) : all;
    this.matching.sort((a, b) => {
      const [p, q] = [a[key], b[key]];
      /* What is not known comes last, whichever way. */
      if (p == null || q == null) return (p == null) - (q == null);
      return p < q ? -way : p > q ? way : 0;
    });
    this.page = Math.max(0, Math.min(this.page, Math.ceil(this.matching.length / shown()) - 1));
    this.shown = this.matching.slice(this.page * shown(), (this.page + 1) * shown());
  },
  /* While somebody points at a row, rows stay where they are: else another one would be under the finger. */
  isHeld() {
    return this.shown.length && (hovers.matches && $('rows').matches(':hover') || $('rows').querySelector(':focus-visible'));
  },
  render(anew) {
    this.rendered = now();
    const held = !anew && this.isHeld();
    if (!held) this.choose();
    const body = $('rows');
    while (body.childElementCount < this.shown.length) body.append(makeRow());
    while (body.childElementCount > this.shown.length) body.lastElementChild.remove();
    this.shown.forEach((row, i) => fillRow(body.children[i], row));
    const { length } = this.matching, from = this.page * shown();
    put($('range'), length ? `${number(from + 1)}–${number(from + this.shown.length)} of ${number(length)}` : 'none');
    $('before').disabled = !this.page;
    $('after').disabled = from + shown() >= length;
    const all = count(this.rows.size, 'connection'), cut = this.rows.size >= MOST && !this.whole;
    put($('scope'), this.failed ? this.failed : !this.at && !this.whole ? `Loading: ${all} so far` :
      cut ? `Search and sort are among the first ${all} by ID, and there are more: ask for a path, a user or a topic.` :
      held ? 'Rows keep their places while you point at them.' :
      this.at ? `Search and sort are among ${this.rows.size === 1 ? 'the only one' : 'all ' + all}${Object.keys(this.filter).length ? ' of this ' + Object.keys(this.filter)[0] : ''}${alone() ? ' on this node' : this.missing ? ' on the nodes that answer' : ''}, as of ${clock(this.at)}` : all);
    $('empty').hidden = this.shown.length || !this.at;
    put($('empty'), this.rows.size ? 'No connection is like this.' : Object.keys(this.filter).length ? 'Nobody is there.' : 'No client is connected.');
  },
};
/* What the table needs of it; its age is minus the moment of its beginning. */
const brief = ({ id, node, path, user, identity, connectedAt, messagesIn, messagesOut, queuedBytes, roundTripMillis, tags }) => ({
  id, node, path, user, address: identity.sourceIp || null, agent: identity.userAgent, age: -Date.parse(connectedAt),
  in: messagesIn, out: messagesOut, queued: queuedBytes, trip: roundTripMillis, tags,
});
const hay = row => [row.id, row.path, row.user, row.address, row.agent, ...Object.entries(row.tags ?? {}).flat()].join('\n').toLowerCase();

/* As soon as nobody points at them, they go where they belong. */
$('rows').addEventListener('pointerleave', () => list.render(true));

function makeRow() {
  const row = element('tr');
  for (const { className } of COLUMNS) row.append(element('td', className));
  row.addEventListener('click', () => select(row.dataset.id));
  return row;
}
function fillRow(node, row) {
  const id = row.id;
  node.dataset.id = id;
  flag(node, 'data-gone', row.gone);
  flag(node, 'aria-current', id === one.id && 'true');
  COLUMNS.forEach(({ key, text }, i) => {
    const cell = node.children[i], value = text(row);
    if (i && !(i === 1 && !roomy.matches)) return put(cell, value), flag(cell, 'title', key !== 'age' && value.length > 12 && value);
    /* The first cell that is there is the row's button. */
    if (!cell.firstElementChild) cell.replaceChildren(Object.assign(element('button'), { type: 'button' }));
    put(cell.firstElementChild, value);
  });
}
for (const { key, title, first, className } of COLUMNS) {
  const head = element('th', className), button = element('button', '', title);
  head.scope = 'col';
  head.dataset.key = key;
  button.type = 'button';
  button.addEventListener('click', () => setSort(key, list.sort.key === key ? -list.sort.way : first));
  head.append(button);
  $('head').append(head);
}
function setSort(key, way) {
  list.sort = { key, way };
  list.page = 0;
  for (const head of $('head').children) flag(head, 'aria-sort', head.dataset.key === key && (way > 0 ? 'ascending' : 'descending'));
  const value = `${key} ${way}`;
  $('sort').value = value;
  list.render(true);
}
$('sort').addEventListener('change', () => {
  const [key, way] = $('sort').value.split(' ');
  setSort(key, Number(way));
});
function turn(by) {
  list.page += by;
  list.render(true);
  $('scroll').scrollTop = 0;
  if (!wide.matches) $('find-form').scrollIntoView();
}
$('before').addEventListener('click', () => turn(-1));
$('after').addEventListener('click', () => turn(1));
for (const width of [wide, roomy]) {
  width.addEventListener('change', () => {
    $('rows').replaceChildren();
    list.render(true);
  });
}

/* Anywhere is searched here, in what is loaded; a path, a user and a topic are asked for. */
function search() {
  const where = $('where').value, text = chosen.find ?? $('find').value.trim();
  const filter = where && text ? { [where]: text } : {};
  list.words = where ? [] : text.toLowerCase().split(/\s+/).filter(Boolean);
  list.page = 0;
  if (JSON.stringify(filter) === JSON.stringify(list.filter)) list.render(true);
  else list.restart(filter);
}
let typing = 0;
$('find').addEventListener('input', () => {
  delete chosen.find;
  clearTimeout(typing);
  typing = setTimeout(search, $('where').value ? 300 : 60);
});
$('where').addEventListener('change', () => {
  delete chosen.find;
  $('find').placeholder = { path: '/chat', user: 'a user', topic: 'a topic' }[$('where').value] ?? 'ID, path, user, address …';
  search();
});
onSubmit('find-form', search);

/* One connection */
const one = { id: '', gone: false, timer: 0, turn: 0 };

function select(id) {
  Object.assign(one, { id, gone: false });
  for (const field of ['push', 'close']) tell(field, '');
  put($('one-id'), id);
  $('one-gone').hidden = true;
  $('one-facts').replaceChildren();
  $('one-none').hidden = true;
  $('one-all').hidden = false;
  for (const row of $('rows').children) flag(row, 'aria-current', row.dataset.id === id && 'true');
  openTab('one');
}
async function look() {
  clearTimeout(one.timer);
  const { id } = one, turn = ++one.turn;
  if (!id) return;
  if (!one.gone && !document.hidden && !$('one').hidden && state.link === 1) {
    try {
      const info = await json('@connections/' + part(id));
      if (turn === one.turn) showOne(info);
    } catch (error) {
      if (turn === one.turn && error.status === 410) gone();
    }
  }
  if (turn === one.turn) one.timer = setTimeout(look, 2000);
}
function gone() {
  one.gone = true;
  $('one-gone').hidden = false;
}
function showOne(info) {
  const { identity, tags } = info;
  const facts = [
    ['path', visible(info.path)], ['route', info.route === info.path ? '' : info.route], ['user', visible(info.user ?? '')],
    ['tags', Object.entries(tags ?? {}).map(([key, value]) => visible(`${key}: ${value}`)).join('\n')],
    ['topics', info.topics.map(visible).join('\n')],
    ['address', identity.sourceIp], ['agent', visible(identity.userAgent ?? '')],
    ['node', before?.cluster && String(info.node)], ['kind', info.shared ? 'shared' : 'with a thread'],
    ['opened', dated(info.connectedAt)], ['last active', dated(info.lastActiveAt)],
    ['received', `${count(info.messagesIn, 'message')}, ${bytes(info.bytesIn)}`],
    ['sent', `${count(info.messagesOut, 'message')}, ${bytes(info.bytesOut)}`],
    ['queued', bytes(info.queuedBytes)], ['round trip', millis(info.roundTripMillis)],
  ].filter(([, value]) => value);
  const box = $('one-facts');
  while (box.childElementCount > 2 * facts.length) box.lastElementChild.remove();
  while (box.childElementCount < 2 * facts.length) box.append(element('dt'), element('dd'));
  facts.forEach(([name, value], i) => {
    put(box.children[2 * i], name);
    put(box.children[2 * i + 1], value);
  });
}
function tell(field, done, error = '') {
  put($(field + '-done'), done);
  put($(field + '-error'), error);
}
/* One at a time, also by keys. What came of it is not told of another connection that was chosen meanwhile. */
async function act(field, what) {
  const button = $(field + '-form').querySelector('button'), text = $(field + '-text'), sent = text?.value, { id } = one;
  if (button.disabled) return;
  const isSame = () => field === 'cast' || id === one.id;
  tell(field, '');
  button.disabled = true;
  try {
    const done = await what();
    if (text && text.value === sent) text.value = ''; // not what was typed meanwhile
    if (isSame()) tell(field, done);
  } catch (error) {
    if (!isSame()) return;
    tell(field, '', explain(error));
    if (error.status === 410) gone();
  } finally {
    button.disabled = false;
  }
}
onSubmit('push-form', async () => {
  const { id } = one;
  const body = $('push-text').value;
  await act('push', async () => {
    const { result } = await json(`@connections/${part(id)}?type=text`, { method: 'POST', body });
    return { sent: 'Sent.', forwarded: 'Forwarded to its node.' }[result] ?? 'Queued: the client does not take it yet.';
  });
  look();
});
onSubmit('close-form', async () => {
  const { id } = one, code = $('code').value.trim(), reason = $('reason').value;
  if (!/^(100[0-37-9]|101[0-4]|[34]\d{3})$/.test(code)) return tell('close', '', 'The code: 1000 to 1003, 1007 to 1014, or 3000 to 4999.');
  const length = byteLength(reason);
  if (length > MAX_REASON) return tell('close', '', `The reason takes ${length} bytes in UTF-8; the most is ${MAX_REASON}.`);
  await act('close', async () => {
    await ask(`@connections/${part(id)}` + query({ code, reason: reason || undefined }), { method: 'DELETE' });
    return `Closed with ${code}.`;
  });
  look();
});

/* Broadcast */
const AUDIENCES = { path: 'Path', topic: 'Topic', user: 'User' };

function showAudience() {
  const audience = $('audience').value;
  $('name-field').hidden = !audience;
  put($('name-label'), AUDIENCES[audience] ?? '');
  put($('cast-send'), audience || !before || before.nodes > 1 ? 'Send' : `Send to ${count(before.connections, 'connection')}`);
}
for (const [id, type] of [['audience', 'change'], ['name', 'input']]) $(id).addEventListener(type, () => { delete chosen.name; tell('cast', ''); showAudience(); });
onSubmit('cast-form', async () => {
  const audience = $('audience').value, name = meant('name'), body = $('cast-text').value;
  if (audience && !name) return tell('cast', '', `The ${audience} is missing.`), $('name').focus();
  const path = { topic: '@topics/' + part(name), user: '@users/' + part(name) }[audience] ?? '@broadcast';
  await act('cast', async () => {
    const counts = await json(path + query({ type: 'text', path: audience === 'path' ? name : undefined }), { method: 'POST', body });
    const told = ['sent', 'queued', 'dropped', 'gone'].filter(what => counts[what]).map(what => `${number(counts[what])} ${what}`);
    if (counts.forwarded) told.push(`forwarded to ${count(counts.forwarded, 'node')}`);
    if (counts.unreachable) told.push('other nodes may not have got it');
    return told.length ? told.join(', ') + '.' : 'Nobody was there.';
  });
});

/* What a tab shows is asked for as long as it is seen. */
async function poll(signal) {
  for (;;) {
    if (!document.hidden && !$(this.tab).hidden && state.link !== 2) {
      try {
        this.show(await json(this.path(), { signal }));
      } catch (error) {
        if (signal.aborted) return;
        put($(this.note), explain(error));
      }
    }
    await pause(3000, signal);
    while (state.link !== 1) await pause(250, signal);
  }
}

/* Nodes of a cluster */
const nodes = {
  ...runner, run: poll, tab: 'nodes', note: 'node-error',
  path: () => '@nodes',
  show({ cluster, nodes }) {
    const sum = nodes.reduce((sum, node) => sum + (node.connections ?? 0), 0), own = nodes.find(node => node.this);
    put($('node-error'), cluster === 'unreachable' ? 'Redis is not reached: the other nodes are those of before, and cannot be reached.' : '');
    put($('node-note'), `${count(sum, 'connection')} on ${count(nodes.length, 'node')}. Plots, and the numbers above, are of node ${own?.node} alone, which this console is on.`);
    const body = $('node-rows');
    while (body.childElementCount > nodes.length) body.lastElementChild.remove();
    while (body.childElementCount < nodes.length) {
      const row = element('tr');
      for (const name of ['', 'number', 'number', '']) row.append(element('td', name));
      body.append(row);
    }
    nodes.forEach(({ node, connections, uptimeSeconds: up, software, ...rest }, i) => {
      const row = body.children[i];
      flag(row, 'aria-current', rest.this && 'true');
      [node, connections == null ? 'no answer' : number(connections), up == null ? '' : age(up * 1000), software.replace('switchboard ', '')]
        .forEach((text, i) => put(row.children[i], visible(String(text))));
    });
  },
};

/* Topics */
const topics = {
  ...runner, stack: [undefined], next: null,
  run: poll, tab: 'topics', note: 'topic-note',
  path() { return '@topics' + query({ after: this.stack.at(-1), limit: 100 }); },
  show({ topics, next }) {
    const box = $('topic-list');
    while (box.childElementCount > topics.length) box.lastElementChild.remove();
    while (box.childElementCount < topics.length) box.append(makeTopic());
    topics.forEach(({ name, members }, i) => {
      const [button, number_] = box.children[i].children;
      box.children[i].topic = name;
      put(button, visible(name));
      flag(button, 'title', name.length > 30 && visible(name));
      put(number_, number(members));
    });
    this.next = next;
    $('topics-before').hidden = this.stack.length < 2;
    $('topics-after').hidden = !next;
    put($('topic-note'), topics.length ? 'A name shows in the table who is there.' : 'No connection has joined a topic.');
  },
};
function makeTopic() {
  const item = element('li'), name = element('button', 'name'), send = element('button', 'send', 'Send …');
  name.type = send.type = 'button';
  name.addEventListener('click', () => {
    $('where').value = 'topic';
    choose('find', item.topic);
    if (!wide.matches) lower();
    search();
  });
  send.addEventListener('click', () => {
    $('audience').value = 'topic';
    choose('name', item.topic);
    tell('cast', '');
    showAudience();
    openTab('cast');
    $('cast-text').focus();
  });
  item.append(name, element('span'), send);
  return item;
}
$('topics-after').addEventListener('click', () => { topics.stack.push(topics.next); topics.again(); });
$('topics-before').addEventListener('click', () => { topics.stack.pop(); topics.again(); });

/* Tabs; where there is little room, a sheet that is raised and lowered */
const TABS = ['topics', 'cast', 'one', 'nodes'];

function openTab(name) {
  for (const tab of TABS) {
    $(tab).hidden = tab !== name;
    $('tab-' + tab).setAttribute('aria-selected', tab === name);
    $('tab-' + tab).tabIndex = tab === name ? 0 : -1;
  }
  $('side').classList.add('up');
  if (!wide.matches && name === 'one') $('one-id').focus({ preventScroll: true });
  if (name === 'one') look();
  for (const panel of [topics, nodes]) if (name === panel.tab && panel.running) panel.again();
}
function lower() {
  $('side').classList.remove('up');
  if (one.id && $('one').hidden === false) [...$('rows').children].find(row => row.dataset.id === one.id)?.querySelector('button')?.focus();
}
for (const name of TABS) {
  $('tab-' + name).addEventListener('click', () => openTab(name));
  $('tab-' + name).addEventListener('keydown', event => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const tabs = TABS.filter(tab => !$('tab-' + tab).hidden);
    const next = tabs[(tabs.indexOf(name) + by + tabs.length) % tabs.length];
    openTab(next);
    $('tab-' + next).focus();
  });
}
$('lower').addEventListener('click', lower);
$('side').addEventListener('keydown', event => { if (event.key === 'Escape' && !wide.matches) lower(); });

function onSubmit(form, act) {
  $(form).addEventListener('submit', event => { event.preventDefault(); act(); });
}
/* Enter sends to one, Shift and Enter add a line; what goes to many is not sent by a key. */
$('push-text').addEventListener('keydown', event => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!event.repeat) $('push-form').requestSubmit();
});

$('logo').src = $('icon').href;
setSort('age', 1);
follow();
