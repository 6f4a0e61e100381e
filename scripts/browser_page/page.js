"use strict";
const $ = id => document.getElementById(id);
// Each knob: its option, label, range, and the value at which it does nothing and isn't sent.
const KNOBS = [
  ["temperature", "Temperature", 0, 2, 0.05, 0.8],
  ["top_k", "Top-k", 0, 200, 1, 0],
  ["top_p", "Top-p", 0.05, 1, 0.01, 1],
  ["min_p", "Min-p", 0, 0.5, 0.01, 0],
  ["repetition_penalty", "Repetition penalty", 1, 2, 0.01, 1],
];
const AT_ONCE = 160;  // tokens of a text whose attention is computed without being asked for
const state = {tokens: [], given: 0, busy: false, at: null, layer: 0, head: 0, layers: 0, heads: 0, bytes: null};

for (const [name, label, low, high, step, value] of KNOBS) {
  const row = document.createElement("label"), input = document.createElement("input"), out = document.createElement("output");
  Object.assign(input, {type: "range", min: low, max: high, step, value, id: name});
  row.className = "knob"; row.append(label, input, out);
  const off = name === "temperature" ? null : value;
  const show = () => { out.textContent = name === "temperature" && +input.value === 0 ? "greedy" : +input.value === off ? "off" : input.value; };
  input.addEventListener("input", show); show(); $("knobs").append(row);
}

function options() {
  const temperature = +$("temperature").value, found = {max_new_tokens: +$("tokens").value || 60};
  if (temperature > 0) {
    Object.assign(found, {do_sample: true, temperature});
    const seed = $("seed").value.trim();
    found.seed = /^\d{1,15}$/.test(seed) ? +seed : Math.floor(Math.random() * 2 ** 31);
  }
  for (const [name, , , , , off] of KNOBS) {
    const value = +$(name).value;
    if (name !== "temperature" && value !== off && (temperature > 0 || name === "repetition_penalty")) found[name] = value;
  }
  return found;
}

// ---- Python, in a worker -----------------------------------------------------------------------------------------------
const MISSING = "This page needs the files of Pyodide beside it, and a web server: scripts/build_browser_page.py puts them together.";
const worker = location.protocol === "file:" ? null : new Worker("worker.js", {type: "module"});
const ask = (task, rest = {}) => worker.postMessage({task, ...rest});
const megabytes = bytes => `${(bytes / 1e6).toFixed(1)} MB`;
const told = {
  loading({name}) { $("load").textContent = `Loading ${name} …`; },
  ready(about) {
    Object.assign(state, {layers: about.layers, heads: about.heads});
    const each = Object.entries(about.took).map(([name, time]) => `${name} ${time.toFixed(1)} s`).join(", ");
    $("load").textContent = `Loaded in ${about.seconds.toFixed(1)} s (${each}): ${megabytes(about.bytes)} in ${about.count} files.`;
    $("name").textContent = `${about.model}, in your browser`;
    $("shape").textContent = `${about.layers} layers of ${about.heads} heads, ${about.width} wide. All of it runs on this machine; nothing is sent anywhere.`;
    document.body.dataset.ready = "yes";
    busy(false);
  },
  failed({message}) { $("load").textContent = ""; $("wrong").textContent = `${MISSING} (${message})`; },
  wrong({message}) { $("wrong").textContent = message; busy(false); },
  given({tokens}) {
    Object.assign(state, {tokens: tokens.map(text => ({text})), given: tokens.length, at: null, bytes: null});
    $("text").replaceChildren(); $("attention").hidden = true; grow();
  },
  token(one) { state.tokens.push(one); grow(); },
  written({count, end, speed}) {
    const ends = {stop: "the text has ended", length: "as many as were asked for", stopped: "stopped"};
    $("said").textContent = `${count} tokens, ${ends[end]}` + (speed ? `; ${speed.toFixed(1)} tokens a second` : "") + (state.seed === undefined ? "." : `; seed ${state.seed}.`);
    busy(false);
    if (count && state.tokens.length <= AT_ONCE) attend();
  },
  attention({bytes, seconds}) {
    state.bytes = bytes; busy(false);
    $("attention").hidden = false;
    $("took").textContent = `Attention of ${state.tokens.length} tokens, computed in ${seconds.toFixed(1)} s.`;
    heads();
  },
  inspected({page}) {
    $("inside").src = URL.createObjectURL(new Blob([page], {type: "text/html"}));
    $("inside").hidden = false; $("took").textContent = ""; busy(false);
    $("inside").scrollIntoView({behavior: "smooth"});
  },
};
if (worker) {
  worker.onmessage = ({data}) => told[data.kind](data);
  worker.onerror = event => told.failed({message: event.message || "the worker can't be started"});
} else told.failed({message: "it was opened as a file"});

function busy(on, writes = false) {
  state.busy = on;
  $("write").disabled = on; $("stop").disabled = !(on && writes);
  for (const id of ["attend", "inspect"]) $(id).disabled = on || !state.tokens.length;
}

function write() {
  if (state.busy || !document.body.dataset.ready) return;
  const chosen = options();
  state.seed = chosen.seed;
  $("wrong").textContent = ""; $("said").textContent = "Reading your text …"; $("inside").hidden = true;
  busy(true, true);
  ask("write", {prompt: $("prompt").value, options: chosen});
}
function attend() { busy(true); $("took").textContent = "Computing attention …"; ask("attend"); }
function inspect() { busy(true); $("took").textContent = "Looking inside: this takes some seconds …"; ask("inspect"); }

// ---- the text ------------------------------------------------------------------------------------------------------
function grow() {
  for (let at = $("text").children.length; at < state.tokens.length; at++) {
    const one = state.tokens[at], span = document.createElement("span");
    span.className = at < state.given ? "token given" : "token";
    span.textContent = one.text;
    if (one.p !== undefined) { span.title = percent(one.p); span.style.setProperty("--p", one.p.toFixed(3)); }
    span.tabIndex = at ? -1 : 0; span.dataset.at = at;
    span.setAttribute("role", "button");
    $("text").append(span);
  }
}
const percent = p => `${p >= 0.0995 ? Math.round(100 * p) : (100 * p).toFixed(1)}\u00a0%`;  // never parted by a line's end

function choose(at) {
  if (!state.bytes) return;
  state.at = at;
  shade();
}

// ---- attention -----------------------------------------------------------------------------------------------------
const weight = (layer, head, query, key) => {
  const T = state.tokens.length;
  return state.bytes[(layer * state.heads + head) * T * (T + 1) / 2 + query * (query + 1) / 2 + key] / 255;
};

// Opens on the head that looks most at anything but the text's first token and the token itself.
function liveliest() {
  let best = [0, 0, -1];
  for (let layer = 0; layer < state.layers; layer++) for (let head = 0; head < state.heads; head++) {
    let sum = 0;
    for (let query = 2; query < state.tokens.length; query++) {
      let top = 0;
      for (let key = 1; key < query; key++) top = Math.max(top, weight(layer, head, query, key));
      sum += top;
    }
    if (sum > best[2]) best = [layer, head, sum];
  }
  return best;
}

function heads() {
  [state.layer, state.head] = liveliest();
  state.at = state.tokens.length - 1;
  const grid = $("heads"), T = state.tokens.length, colour = getComputedStyle(document.documentElement).getPropertyValue("--look").trim().split(" ");
  grid.style.gridTemplateColumns = `max-content repeat(${state.heads}, minmax(0, 2.6rem))`;
  const label = text => Object.assign(document.createElement("span"), {className: "label", textContent: text});
  grid.replaceChildren(label(""), ...Array.from({length: state.heads}, (_, head) => label(head)));
  for (let layer = 0; layer < state.layers; layer++) {
    grid.append(label(layer));
    for (let head = 0; head < state.heads; head++) {
      const button = document.createElement("button"), canvas = document.createElement("canvas");
      Object.assign(canvas, {width: T, height: T});
      const context = canvas.getContext("2d"), image = context.createImageData(T, T);
      for (let query = 0; query < T; query++) for (let key = 0; key <= query; key++) {
        const dot = 4 * (query * T + key);
        for (let part = 0; part < 3; part++) image.data[dot + part] = +colour[part];
        image.data[dot + 3] = 255 * Math.sqrt(weight(layer, head, query, key));
      }
      context.putImageData(image, 0, 0);
      button.append(canvas);
      button.dataset.layer = layer; button.dataset.head = head; button.tabIndex = -1;
      button.setAttribute("aria-label", `layer ${layer}, head ${head}`);
      grid.append(button);
    }
  }
  shade();
}

function shade() {
  for (const button of $("heads").querySelectorAll("button")) {
    const chosen = +button.dataset.layer === state.layer && +button.dataset.head === state.head;
    button.setAttribute("aria-pressed", chosen); button.tabIndex = chosen ? 0 : -1;
  }
  const looked = state.tokens.map((_, key) => key <= state.at ? weight(state.layer, state.head, state.at, key) : 0), top = Math.max(...looked);
  [...$("text").children].forEach((span, key) => {
    span.classList.toggle("looks", key === state.at);
    span.style.setProperty("--look-at", (looked[key] / top || 0).toFixed(3));
  });
  enlarge();
  const most = looked.map((share, key) => [share, key]).sort((one, other) => other[0] - one[0]).slice(0, 3).filter(([share]) => share > 0);
  const name = key => `“${state.tokens[key].text.trim() || "␣"}”`;
  $("look").textContent = `Layer ${state.layer}, head ${state.head}: ${name(state.at)} looks at ${most.map(([share, key]) => `${name(key)} ${percent(share)}`).join(", ")}.`;
}

// The chosen head, enlarged; the row of the chosen token stands out.
function enlarge() {
  const T = state.tokens.length, canvas = $("matrix"), small = $("heads").querySelector("[aria-pressed=true] canvas");
  Object.assign(canvas, {width: T, height: T});
  const context = canvas.getContext("2d");
  context.globalAlpha = 0.45; context.drawImage(small, 0, 0);
  context.globalAlpha = 1; context.clearRect(0, state.at, T, 1); context.drawImage(small, 0, state.at, T, 1, 0, state.at, T, 1);
}

// ---- hands -----------------------------------------------------------------------------------------------------------
$("write").addEventListener("click", write);
$("stop").addEventListener("click", () => ask("stop"));
$("attend").addEventListener("click", attend);
$("inspect").addEventListener("click", inspect);
$("text").addEventListener("click", event => { const span = event.target.closest(".token"); if (span) choose(+span.dataset.at); });
$("text").addEventListener("mouseover", event => { const span = event.target.closest(".token"); if (span && !state.busy) choose(+span.dataset.at); });
$("heads").addEventListener("click", event => {
  const button = event.target.closest("button");
  if (button) { state.layer = +button.dataset.layer; state.head = +button.dataset.head; shade(); }
});
$("matrix").addEventListener("mousemove", event => {
  const box = $("matrix").getBoundingClientRect(), at = Math.floor((event.clientY - box.top) / box.height * state.tokens.length);
  if (!state.busy && state.tokens[at]) choose(at);
});
// One Tab stop for a group; the arrow keys move within it.
function arrows(group, items, columns, chosen) {
  group.addEventListener("keydown", event => {
    const all = items(), at = all.indexOf(document.activeElement);
    const to = {ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns(), ArrowDown: at + columns(), Home: 0, End: all.length - 1}[event.key];
    if (at < 0 || to === undefined || !all[to]) return;
    event.preventDefault();
    all[at].tabIndex = -1; all[to].tabIndex = 0; all[to].focus(); chosen(all[to]);
  });
}
arrows($("text"), () => [...$("text").children], () => 8, span => choose(+span.dataset.at));
arrows($("heads"), () => [...$("heads").querySelectorAll("button")], () => state.heads, button => button.click());
document.addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); write(); }
  if (event.key === "Escape" && worker) ask("stop");
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (state.bytes) heads(); });
busy(true);
