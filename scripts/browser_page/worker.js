// Python and the model, beside the page's own thread. All it fetches lies in this folder.
const tell = (kind, rest = {}) => postMessage({kind, ...rest});
const seconds = since => (performance.now() - since) / 1000;
let studio = null, run = 0;

async function start() {
  const begun = performance.now(), took = {};
  const step = async (name, work) => {
    const since = performance.now();
    tell("loading", {name});
    const found = await work();
    took[name] = seconds(since);
    return found;
  };
  const files = await (await fetch("files.json")).json();
  const python = await step("Python", async () => {
    const {loadPyodide} = await import(`./pyodide/${files.loader}`);
    return loadPyodide({indexURL: new URL("pyodide/", location.href).href, stdout: () => {}});
  });
  await step("NumPy", () => python.loadPackage(["numpy"], {messageCallback: () => {}}));
  await step("the model", async () => {
    const answer = await fetch(files.wheel);
    if (!answer.ok) throw new Error(`${files.wheel}: ${answer.status} ${answer.statusText}`);
    python.unpackArchive(await answer.arrayBuffer(), "wheel");
    const source = await (await fetch("in_browser.py")).text();
    python.FS.writeFile("/home/pyodide/in_browser.py", source);
    studio = await python.runPythonAsync("from in_browser import Studio; Studio()");
  });
  const {name: model, ...shape} = JSON.parse(studio.about());
  tell("ready", {seconds: seconds(begun), took, bytes: files.bytes, count: files.count, model, ...shape});
}

// A message that came meanwhile, such as "stop", is taken before this is over.
const pause = () => new Promise(go => { const both = new MessageChannel(); both.port1.onmessage = go; both.port2.postMessage(0); });

async function write({prompt, options}) {
  const mine = ++run;
  const given = JSON.parse(studio.begin(prompt, JSON.stringify(options)));
  if (given.error) return tell("wrong", {message: given.error});
  tell("given", given);
  let count = 0, first = 0, last = 0, end = null;
  await pause();
  while (mine === run) {
    const one = JSON.parse(studio.step());
    if (!one) break;
    last = performance.now();
    first ||= last;
    count++;
    end = one.end;
    tell("token", one);
    await pause();
  }
  tell("written", {count, end: end || "stopped", speed: count > 1 ? (count - 1) / ((last - first) / 1000) : null});
}

const tasks = {
  write,
  stop() { run++; },
  attend() {
    const since = performance.now(), found = studio.attention(), bytes = found.toJs();
    found.destroy();
    tell("attention", {bytes, seconds: seconds(since)});
  },
  inspect() { tell("inspected", {page: studio.inspect()}); },
};

const words = error => String(error.message || error).trim().split("\n").pop();
onmessage = async ({data}) => {
  try {
    await tasks[data.task](data);
  } catch (error) { tell("wrong", {message: words(error)}); }
};
start().catch(error => tell("failed", {message: words(error)}));
