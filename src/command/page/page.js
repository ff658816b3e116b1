const $ = id => document.getElementById(id);
const STATES = ['CONNECTING', 'OPEN', 'CLOSING', 'CLOSED'];
const CODES = {
  1000: 'normal', 1001: 'going away', 1002: 'protocol error', 1003: 'unsupported data', 1005: 'no code given',
  1006: 'lost without a close message', 1007: 'invalid data', 1008: 'policy violation', 1009: 'message too big',
  1010: 'extension missing', 1011: 'server error', 1012: 'server restarting', 1013: 'try again later', 1015: 'TLS failed'
};
const MAX_ROWS = 500, MAX_LINES = 200, MAX_TEXT = 2000, MAX_HEX = 32, MAX_REASON = 123, MAX_NAME = 30, MAX_ASKED = 100;
const STALL = 2500, GIVE_UP = 40000;
const origin = location.origin.replace(/^http/, 'ws');
const now = () => performance.now();
const byteLength = text => new TextEncoder().encode(text).length;
const count = (n, word) => `${n.toLocaleString('en')} ${word}${n === 1 ? '' : 's'}`;
const cut = (text, most) => text.slice(0, most).replace(/[\ud800-\udbff]$/, '');
const explain = error => `${error.name}: ${error.message}`;
const element = (name, className, text) => {
  const node = document.createElement(name);
  node.className = className;
  node.textContent = text;
  return node;
};
/* Only a change is told: setting the same text again would be spoken again. */
function put(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}
/* `until` is the time of the next try, or 0. */
const countdown = until => until > now() ? `in ${Math.ceil((until - now()) / 1000)} s` : '';

/* A list that shows its newest rows. They wait, and go in together: a flood costs one layout, not thousands. */
class Rows {
  waiting = [];
  timer = 0;
  dropped = 0;
  following = true;

  constructor(id, most, changed) {
    Object.assign(this, { box: $(id), list: $(id).firstElementChild, most, changed });
    this.box.addEventListener('scroll', () => {
      this.following = this.box.scrollHeight - this.box.clientHeight - this.box.scrollTop < 32;
      changed();
    }, { passive: true });
  }
  add(make) {
    this.waiting.push(make);
    if (this.waiting.length > this.most) { this.waiting.shift(); this.dropped++; }
    this.timer = this.timer || setTimeout(() => this.flush(), 30);
  }
  flush() {
    this.timer = 0;
    this.list.append(...this.waiting.map(make => make()));
    this.waiting = [];
    while (this.list.childElementCount > this.most) { this.list.firstElementChild.remove(); this.dropped++; }
    if (this.following) this.follow();
    this.changed();
  }
  follow() {
    this.following = true;
    this.box.scrollTop = this.box.scrollHeight;
  }
}

/* Log */
const log = new Rows('log', MAX_ROWS, showLog);

function showLog() {
  const rows = log.list.childElementCount;
  $('count').textContent = (rows ? count(rows, 'row') : '') + (log.dropped ? `, ${log.dropped.toLocaleString('en')} older let go` : '');
  $('newest').hidden = log.following;
}
function write(dir, body, kind = '', more = '') {
  measure(dir, kind + body);
  const at = new Date();
  log.add(() => {
    const item = element('li', '', '');
    item.dataset.dir = dir;
    const local = new Date(at - at.getTimezoneOffset() * 60000).toISOString();
    const time = element('time', '', local.slice(11, -1));
    time.dateTime = at.toISOString();
    const content = element('div', kind ? 'body' : 'body note', body);
    if (more) content.append(element('span', 'more', more));
    item.append(time, element('span', 'dir', dir), element('span', 'kind', kind), content);
    return item;
  });
}
function writeText(dir, text) {
  const shown = cut(text, MAX_TEXT), rest = text.length - shown.length;
  write(dir, shown, 'text, ' + count(byteLength(text), 'byte'),
    text === '' ? '(empty)' : rest ? ` … and ${count(rest, 'character')} more` : '');
}
function writeBytes(dir, head, length, name) {
  const hex = Array.from(head.subarray(0, MAX_HEX), byte => byte.toString(16).padStart(2, '0')).join(' ');
  write(dir, hex, 'binary, ' + count(length, 'byte'),
    (length ? '' : '(empty)') + (length > MAX_HEX ? ' …' : '') + (name ? ' from ' + name : ''));
}
$('newest').addEventListener('click', () => {
  log.follow();
  log.box.focus({ preventScroll: true });
});
$('clear').addEventListener('click', () => {
  log.list.replaceChildren();
  Object.assign(log, { waiting: [], dropped: 0, following: true });
  showLog();
});

/* Round trip: from `send` to the message that is the same. On other paths than an echo, others may come in between. */
let asked = [], moment = 0;

function measure(dir, what) {
  if (dir === 'sent') {
    asked.push({ what, at: moment });
    if (asked.length > MAX_ASKED) asked.shift();
  } else if (dir === 'received') {
    const i = asked.findIndex(question => question.what === what);
    if (i < 0) return;
    $('trip').textContent = (moment - asked[i].at).toFixed(1) + ' ms';
    asked.splice(0, i + 1);
  }
}

/* Errors beside their field */
function fail(field, message) {
  $(field + '-error').textContent = message;
  if ($(field).matches('input:not([type=file]), textarea')) $(field).setAttribute('aria-invalid', 'true');
  return false;
}
function pass(...fields) {
  for (const field of fields) {
    $(field + '-error')?.replaceChildren();
    $(field).removeAttribute('aria-invalid');
  }
}

/* The socket */
let socket = null, until = 0, peak = 0, watching = 0;

function show() {
  const state = socket ? socket.readyState : -1;
  const live = state === 0 || state === 1;
  put('state', !socket ? 'no socket yet' : until ? 'reconnecting' : state + ' ' + STATES[state]);
  put('wait', countdown(until));
  $('facts').dataset.state = state;
  put('protocol', socket && socket.protocol || 'none');
  put('extensions', socket && socket.extensions || 'none');
  const had = document.activeElement;
  $('connect').disabled = live || state === 2;
  $('disconnect').disabled = !live;
  if (had === $('connect') && live) $('disconnect').focus();
  if (had === $('disconnect') && state === 3 || had === document.body && show.lost && state === 3) $('connect').focus();
  show.lost = had === $('disconnect') && state === 2;
  showBuffered();
}
function showBuffered() {
  const amount = socket ? socket.bufferedAmount : 0;
  peak = Math.max(peak, amount);
  put('buffered', String(amount));
  put('peak', 'bytes' + (peak ? ', peak ' + peak.toLocaleString('en') : ''));
  return amount;
}
function watch() {
  watching = 0;
  if (showBuffered() && socket.readyState !== 3) watching = requestAnimationFrame(watch);
}
const quoted = reason => reason ? `“${reason}”` : 'none';
function ending({ code, reason, wasClean }) {
  const meaning = CODES[code] || (code >= 4000 ? 'private use' : code >= 3000 ? 'registered use' : 'not a known code');
  return `code ${code} (${meaning}), reason ${quoted(reason)}, wasClean ${wasClean}`;
}
function connect() {
  if (socket && socket.readyState !== 3) return;
  pass('connect', 'protocols');
  const offer = $('protocols').value.split(',').map(name => name.trim()).filter(Boolean);
  let next;
  try {
    next = new ReconnectingWebSocket(address(), offer);
  } catch (error) {
    fail('connect', explain(error));
    if (offer.length) $('protocols').setAttribute('aria-invalid', 'true');
    write('error', explain(error));
    return;
  }
  next.binaryType = 'arraybuffer';
  socket = next;
  peak = 0;
  $('trip').textContent = 'none yet';
  let started = now(), came = false;
  write('opening', next.url + (offer.length ? ' offering ' + offer.join(', ') : ''));
  show();
  next.onopen = () => {
    pass('text', 'hex', 'file', 'code');
    write('open', `${came ? 'reconnected ' : ''}after ${Math.round(now() - started)} ms, ` +
      `protocol ${next.protocol || 'none'}, extensions ${next.extensions || 'none'}`);
    came = true;
    until = 0;
    asked = [];
    show();
  };
  next.onmessage = ({ data }) => {
    moment = now();
    if (typeof data === 'string') writeText('received', data);
    else writeBytes('received', new Uint8Array(data), data.byteLength);
  };
  next.onerror = () => {
    if (came) return;
    write('error', 'The browser does not tell a page what went wrong; ' +
      (offer.length ? 'perhaps the server takes none of the subprotocols.' : 'the close code may.'));
  };
  next.onwaiting = event => {
    /* What was refused at once would be refused again. */
    if (!came) return next.close();
    if (!until) started = now();
    until = now() + event.delay;
    write('waiting', `reconnecting in ${(event.delay / 1000).toFixed(1)} s after ${ending(event)}`);
    show();
  };
  next.onclose = event => {
    until = 0;
    write('closed', ending(event));
    show();
  };
}
function close(field, ...args) {
  if (!socket || socket.readyState > 1) return fail(field, 'Not connected. Connect first.');
  try {
    socket.close(...args);
  } catch (error) {
    return fail(field, explain(error));
  }
  write('closing', args.length ? `code ${args[0]}, reason ${quoted(args[1])}` : 'no code');
  show();
}
function ready(field) {
  pass(field);
  return socket && socket.readyState === 1 ||
    fail(field, socket && socket.readyState === 0 ? 'Still connecting. Try again in a moment.' : 'Not connected. Connect first.');
}
function send(field, data) {
  if (!ready(field)) return false;
  moment = now();
  try {
    socket.send(data);
  } catch (error) {
    return fail(field, explain(error));
  }
  if (!watching) watch();
  return true;
}

/* Connection panel */
function address() {
  const path = $('path').value.trim();
  return origin + (path.startsWith('/') ? '' : '/') + path;
}
const options = [...$('paths').options];
for (const option of options) {
  const chip = element('button', 'chip', option.label);
  chip.type = 'button';
  chip.addEventListener('click', () => { $('path').value = option.value; showPath(); });
  $('chips').append(chip);
}
function showPath() {
  const path = $('path').value.trim();
  $('path-note').textContent = options.find(option => option.value === path)?.dataset.note || '';
  options.forEach((option, i) => $('chips').children[i].setAttribute('aria-pressed', option.value === path));
}
$('path').addEventListener('input', showPath);
$('protocols').addEventListener('input', () => pass('connect', 'protocols'));
$('disconnect').addEventListener('click', () => close('connect'));
/* A key held down on one button must not go on to press the other. */
for (const id of ['connect', 'disconnect', 'chat-enter']) $(id).addEventListener('keydown', event => { if (event.repeat) event.preventDefault(); });
for (const field of ['text', 'hex', 'code', 'reason']) $(field).addEventListener('input', () => pass(field));

function onSubmit(form, act) {
  $(form).addEventListener('submit', event => { event.preventDefault(); act(); });
}
onSubmit('connect-form', connect);

/* Send panel */
function sendText() {
  const text = $('text').value;
  if (!send('text', text)) return;
  writeText('sent', text);
  $('text').value = '';
}
$('text').addEventListener('keydown', event => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  sendText();
});
onSubmit('text-form', sendText);

function parseHex(text) {
  const groups = text.split(/[\s,:]+/).filter(Boolean).map(group => group.replace(/^0x(?=.)/i, ''));
  if (!groups.length) throw new Error('Write at least one byte, such as 00 ff 10.');
  for (const group of groups) {
    const short = group.length > 20 ? group.slice(0, 20) + '…' : group;
    const wrong = group.match(/[^0-9a-f]/iu);
    if (wrong) throw new Error(`“${wrong[0]}” in “${short}” is not a hex digit (0-9, a-f).`);
    if (group.length % 2) throw new Error(`“${short}” is not whole bytes: each byte takes two digits.`);
  }
  return Uint8Array.from(groups.join('').match(/../g), pair => parseInt(pair, 16));
}
onSubmit('hex-form', () => {
  let bytes;
  try {
    bytes = parseHex($('hex').value);
  } catch (error) {
    return fail('hex', error.message);
  }
  if (send('hex', bytes)) writeBytes('sent', bytes, bytes.length);
});
$('file').addEventListener('click', event => { if (!ready('file')) event.preventDefault(); });
$('file').addEventListener('change', async () => {
  const file = $('file').files[0];
  if (!file) return;
  try {
    const head = new Uint8Array(await file.slice(0, MAX_HEX).arrayBuffer());
    if (send('file', file)) writeBytes('sent', head, file.size, file.name);
  } catch (error) {
    fail('file', explain(error));
  }
  $('file').value = '';
});

/* Close panel */
onSubmit('close-form', () => {
  pass('code', 'reason');
  const code = $('code').value.trim(), reason = $('reason').value;
  const length = byteLength(reason);
  let good = true;
  if (!/^(1000|[34]\d{3})$/.test(code)) good = fail('code', 'The code must be 1000, or from 3000 to 4999.');
  if (length > MAX_REASON) good = fail('reason', `The reason takes ${length} bytes in UTF-8; the most is ${MAX_REASON}.`);
  if (good) close('code', Number(code), reason);
});
$('reason').addEventListener('input', () => { $('reason-bytes').textContent = byteLength($('reason').value); });

/* Chat panel: a socket of its own. Once left, it is forgotten: what still comes from it goes nowhere. */
const talk = new Rows('chat-log', MAX_LINES, () => {});
const seen = new Map(); // of each room the last position
let chat = null;

function say(text, name, kind = text.startsWith('* ') ? 'notice' : '') {
  talk.add(() => {
    const shown = text.length > MAX_TEXT ? cut(text, MAX_TEXT) + ' …' : text;
    if (kind) return element('li', kind, shown);
    const own = shown.startsWith(name + ': ');
    const end = own ? name.length : Math.max(0, shown.indexOf(': '));
    const item = element('li', own ? 'own' : '', '');
    item.append(element('b', '', shown.slice(0, end)), shown.slice(end));
    return item;
  });
}
/* `came`: has been in the room, and still is or wants to be there again. */
function showChat(text) {
  const state = chat ? chat.socket.readyState : -1, came = chat && chat.came;
  const had = document.activeElement;
  $('chat-panel').dataset.state = state;
  put('chat-state', text);
  put('chat-wait', '');
  $('chat-enter').textContent = chat ? 'Leave' : 'Enter';
  $('chat-name').readOnly = $('chat-room').readOnly = chat;
  $('chat-line').disabled = $('chat-send').disabled = !came;
  $('chat-line').placeholder = came ? 'Say something' : '';
  if (state === 1 && (had === document.body || $('seat-form').contains(had))) $('chat-line').focus();
  if (!chat && (had === $('chat-line') || had === $('chat-send'))) $('chat-enter').focus();
}
/* The server refuses these too, but then the browser tells the page nothing. */
function seat(field, what) {
  const value = $(field).value.replace(/\p{Cs}/gu, '\ufffd').trim();
  const length = [...value].length;
  if (!length) fail(field, `The ${what} is missing.`);
  else if (length > MAX_NAME) fail(field, `The ${what} has ${length} characters; the most is ${MAX_NAME}.`);
  else if (/\p{Cc}/u.test(value)) fail(field, `The ${what} has a control character in it.`);
  else return value;
  return '';
}
function enter() {
  pass('chat-name', 'chat-room', 'chat-enter');
  const name = seat('chat-name', 'name'), room = seat('chat-room', 'room');
  if (!name || !room) return void $(name ? 'chat-room' : 'chat-name').focus();
  const since = seen.get(room) ?? '';
  const next = new ReconnectingWebSocket('/chat?' + new URLSearchParams({ room, name }), [], { since });
  const here = chat = { socket: next, room, came: false, until: 0 };
  showChat(`entering ${room}…`);
  next.onopen = () => {
    say(`You are in ${room}${here.came ? ' again' : ''}.`, name, 'notice');
    here.came = true;
    here.until = 0;
    talk.following = true;
    showChat('in ' + room);
  };
  next.ongap = () => say('What was said before is not known any more.', '', 'notice');
  next.onmessage = ({ data, lastEventId }) => {
    if (typeof data !== 'string') return;
    if (!lastEventId && data.startsWith('* here: ')) put('chat-here', data.slice(2));
    else say(data, name);
  };
  next.onwaiting = ({ delay }) => {
    if (!here.came) return next.close();
    if (!here.until) say(`You were cut off from ${room}. Reconnecting…`, '', 'notice');
    here.until = now() + delay;
    showChat('reconnecting');
    tick();
  };
  next.onclose = ({ code }) => {
    leave('cut off from ', 'were cut off from ');
    fail('chat-enter', here.came ? `The connection ended: code ${code}${CODES[code] ? ', ' + CODES[code] : ''}.` :
      'The server did not let you in, or is not there.');
  };
}
function leave(state, note) {
  const { socket, room, came } = chat;
  chat = null;
  seen.set(room, socket.since);
  put('chat-here', '');
  socket.onmessage = socket.ongap = socket.onclose = null;
  socket.close();
  if (came) say(`You ${note}${room}.`, '', 'notice');
  showChat(came ? state + room : 'not in a room');
}
onSubmit('seat-form', () => { if (chat) leave('left ', 'left '); else enter(); });
/* Neither the second click of a double click nor Enter in a field that is fixed now may lead out again. */
$('chat-enter').addEventListener('click', event => { if (event.detail > 1) event.preventDefault(); });
$('seat-form').addEventListener('keydown', event => { if (event.key === 'Enter' && event.target.readOnly) event.preventDefault(); });
onSubmit('chat-form', () => {
  const line = $('chat-line').value;
  if (!line.trim() || !chat || chat.socket.readyState !== 1) return;
  chat.socket.send(line);
  $('chat-line').value = '';
  talk.following = true;
});
for (const field of ['chat-name', 'chat-room']) $(field).addEventListener('input', () => pass(field, 'chat-enter'));

/* Clock */
let clock, heard, since, again;

function startClock() {
  clock = new ReconnectingWebSocket('/clock');
  heard = false;
  since = now();
  again = 0;
  clock.onmessage = ({ data }) => {
    $('clock').textContent = data.slice(0, 40);
    heard = true;
    since = now();
    again = 0;
    tick();
  };
  clock.onwaiting = ({ delay }) => { again = now() + delay; since = Infinity; tick(); };
}
function tick() {
  /* Silent for so long: the network is gone, and nobody said so. */
  if (now() - since > GIVE_UP) { clock.onmessage = clock.onwaiting = null; clock.close(); startClock(); }
  const silence = now() - since;
  const late = silence > STALL;
  $('clock-panel').dataset.state = again || !heard ? 0 : late ? 2 : 1;
  put('clock-state', again ? 'reconnecting ' + countdown(again) : !heard ? 'connecting…' :
    late ? `last push ${Math.floor(silence / 1000)} s ago` : 'pushed each second');
  put('wait', countdown(until));
  put('chat-wait', chat ? countdown(chat.until) : '');
}
setInterval(tick, 500);

$('logo').src = $('icon').href;
$('origin').textContent = 'on ' + origin;
startClock();
tick();
showPath();
show();
showChat('not in a room');
