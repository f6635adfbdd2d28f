const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (query, within = document) => within.querySelector(query);
const $$ = (query, within = document) => [...within.querySelectorAll(query)];
const state = { methods: new Set(), request: "", brush: null, text: "", phase: "", status: "", sort: ["", 1], shown: 200 };
const views = new Map();  // element of a panel -> view of its chart

/** Rows of columns as the page holds them: `{n: values}`, or `[words, index of each row]`. */
function rows(columns) {
  const names = Object.keys(columns);
  const at = names.map(name => columns[name].n ? i => columns[name].n[i] : i => columns[name][0][columns[name][1][i]]);
  const count = names.length ? (columns[names[0]].n || columns[names[0]][1]).length : 0;
  return Array.from({ length: count }, (_, i) => Object.fromEntries(names.map((name, j) => [name, at[j](i)])));
}
const cache = {};
const dataset = name => cache[name] ||= rows(DATA.data[name]);
const TRIALS = rows(DATA.trials).map(trial => ({ ...trial, knobs: trial.values.map((value, i) => [trial.names.split(" ")[i], value]) }));
const number = (value, digits = 3) => value == null ? "–" : Number(value.toPrecision(digits)).toString().replace("-", "−");

/** Return an element with attributes and children; text stays text, so that no name is read as markup. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") Object.entries(value).forEach(([event, act]) => element.addEventListener(event, act));
    else if (value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// ---- selection: one state, and everything that follows from it

function update(parts = "all") {
  const chosen = [...state.methods];
  $$(".chip").forEach(chip => chip.setAttribute("aria-pressed", state.methods.has(chip.dataset.pick)));
  $("#clear").hidden = !chosen.length && !state.request && !state.brush;
  if (parts === "all") {
    hide();
    stops();
    views.forEach(view => view.signal("chosen", chosen).runAsync());
    $$("[data-drawn]").forEach(fill);
  }
  list();
}

/** Hide rows, columns and panels of what was not chosen, by one style sheet. */
function hide() {
  const rules = [];
  if (state.methods.size) {
    const others = DATA.methods.map(m => m[0]).filter(name => !state.methods.has(name));
    const hidden = new Set(others);
    rules.push(...others.map(name => `[data-m=${JSON.stringify(CSS.escape(name)).replaceAll("\\\\", "\\")}]`));
    $$("table:has(th[data-col])").forEach((table, place) => {
      table.id ||= `table${place}`;
      $$("thead th", table).forEach((head, i) => {
        if (hidden.has(head.dataset.col)) rules.push(`#${table.id} tr > :nth-child(${i + 1}):not([colspan])`);
      });
    });
  }
  if (state.request) $$("[data-f]").forEach(element => element.toggleAttribute("data-off", element.dataset.f !== state.request));
  else $$("[data-off]").forEach(element => element.removeAttribute("data-off"));
  rules.push("[data-off]");
  $("#filter").textContent = `${rules.join(",")}{display:none}`;
}

function pick(name) {
  if (!DATA.methods.slice(0, -2).some(m => m[0] === name)) return;
  state.methods.has(name) ? state.methods.delete(name) : state.methods.add(name);
  update();
}

// ---- charts

function config() {
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  const font = getComputedStyle(document.body).fontFamily;
  const words = { labelColor: ink, titleColor: ink, titleFontWeight: "normal", labelLimit: 130 };
  const legend = { ...words, orient: "bottom", columns: 3, symbolOpacity: 1 };
  return { ink, config: { font, background: null, view: { stroke: null }, legend,
    axis: { ...words, gridColor: "#8883", domainColor: "#888", tickColor: "#888" } } };
}

async function embed(element, spec, data, height, params = []) {
  const { ink, config: style } = config();
  const datasets = { ...spec.datasets, ...data };
  const all = [...(spec.params || []), { name: "chosen", value: [...state.methods] }, { name: "ink", value: ink }, ...params];
  const full = { ...spec, params: all, datasets, width: "container", height, config: style, autosize: { type: "fit-x", contains: "padding" } };
  const tooltip = { theme: document.documentElement.dataset.theme };
  const { view } = await vegaEmbed(element, full, { renderer: "svg", tooltip, actions: { export: true, source: false, compiled: false, editor: false } });
  view.addEventListener("click", (_, item) => item && item.datum && pick(item.datum.method));
  views.get(element)?.finalize();
  views.set(element, view);
  performance.mark("chart");
  return view;
}

function draw(figure) {
  const name = figure.dataset.figure, one = DATA.figures[name], box = $(".panels", figure);
  figure.dataset.drawn = "yes";
  const filtered = { forget: "data-f", method: "data-m" }[one.field] ?? "data-panel";
  const panels = one.panels.map(([panel, title]) => make("div", { class: "panel", [filtered]: panel }, make("h4", {}, title), make("div")));
  box.replaceChildren(...panels);  // all of them first: they share the width
  hide();
  fill(figure);
}

/** Draw the panels of a figure that are shown and not drawn yet: what is hidden has no width to draw in. */
async function fill(figure) {
  const name = figure.dataset.figure, one = DATA.figures[name], panels = $$(".panel", figure);
  const data = Object.fromEntries(one.data.map(key => [key, dataset(key)]));
  for (const [place, [panel]] of one.panels.entries()) {
    if (panels[place].dataset.begun || getComputedStyle(panels[place]).display === "none") continue;
    panels[place].dataset.begun = "yes";
    const view = await embed(panels[place].lastChild, one.specs[one.alike ? 0 : place], data, one.height, [{ name: "panel", value: panel }]);
    if (name === "tradeoff") view.addSignalListener("brush", (_, brush) => {
      state.brush = brush.time ? { forget: panel, ...brush } : null;
      update("trials");
    });
  }
}

const watcher = new IntersectionObserver(seen => seen.forEach(entry => {
  if (entry.isIntersecting && !entry.target.dataset.drawn) draw(entry.target);
}), { rootMargin: "300px" });

// ---- trials

const COLUMNS = [["number", "Trial"], ["phase", "Phase"], ["forget", "Request"], ["source", "Knobs of"], ["method", "Method"], ["seed", "Seed"],
  ["status", "Status"], ["objective", DATA.objective], ["recovery", "Recovery"], ["seconds", "Seconds"], ["knobs", "Knobs"]];
const knobs = trial => trial.knobs.map(([name, value]) => `${name} = ${value}`).join(", ");
const show = (trial, name) => name === "phase" ? DATA.phases[trial.phase] : name === "knobs" ? knobs(trial)
  : typeof trial[name] === "number" && !["number", "seed"].includes(name) ? number(trial[name]) : trial[name] ?? "–";

/** Whether a trial's cell lies within the brush over the tradeoff. */
function brushed(trial) {
  if (!state.brush) return true;
  const { forget, time, recovery } = state.brush, within = (value, ends) => value >= Math.min(...ends) && value <= Math.max(...ends);
  return dataset("cells").some(cell => cell.forget === forget && cell.forget === trial.forget && cell.method === trial.method
    && cell.role === "method" && within(cell.time, time) && within(Math.min(Math.max(cell.recovery, -50), 130), recovery));
}

function matching() {
  const text = state.text.toLowerCase();
  return TRIALS.filter(trial => (!state.methods.size || state.methods.has(trial.method)) && (!state.request || trial.forget === state.request)
    && (!state.phase || trial.phase === state.phase) && (!state.status || trial.status === state.status) && brushed(trial)
    && (!text || `${trial.method} ${trial.forget} ${knobs(trial)} ${trial.reason}`.toLowerCase().includes(text)));
}

function list() {
  const found = matching(), [key, way] = state.sort;
  if (key) found.sort((a, b) => compare(a[key], b[key], way));
  $("#count").textContent = `${found.length.toLocaleString("en")} of ${TRIALS.length.toLocaleString("en")} trials${state.brush ? ", of the brushed cells" : ""}`;
  const more = make("button", { type: "button", on: { click: () => { state.shown += 500; list(); } } }, "Show more");
  $("#trial-list").replaceChildren(table(found.slice(0, state.shown), true), found.length > state.shown ? more : "");
}

function table(trials, sortable = false) {
  const heads = COLUMNS.map(([key, title]) => make("th", { scope: "col", tabindex: sortable ? 0 : null,
    "aria-sort": sortable && state.sort[0] === key ? (state.sort[1] > 0 ? "ascending" : "descending") : null,
    on: sortable ? { click: () => { state.sort = [key, state.sort[0] === key ? -state.sort[1] : 1]; list(); } } : {} }, title));
  const lines = trials.map(trial => make("tr", { tabindex: 0, on: { click: () => detail(trial, trials) } },
    ...COLUMNS.map(([key]) => make("td", { class: `${["objective", "recovery", "seconds", "number", "seed"].includes(key) ? "" : "text"} ${key === "status" ? trial.status : ""} ${key === "knobs" ? "wrap" : ""}` }, String(show(trial, key))))));
  return make("table", { class: sortable ? "sortable" : "" }, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...lines));
}

function open(...children) {
  const dialog = $("#trials-of");
  const close = make("button", { type: "button", on: { click: () => dialog.close() } }, "Close");
  dialog.replaceChildren(make("div", { class: "top" }, children.shift(), close), ...children);
  if (!dialog.open) dialog.showModal();
}

/** Show the trials behind a cell of a table. */
function cell(method, forget) {
  const found = TRIALS.filter(trial => trial.method === method && (!forget || trial.forget === forget));
  const finals = found.filter(trial => trial.phase !== "search"), search = found.filter(trial => trial.phase === "search");
  open(make("h2", {}, `${method}${forget ? ` on ${forget}` : ""}: ${found.length} trials`), make("div", { class: "scroll" }, table([...finals, ...search])));
}

function detail(trial, others) {
  const facts = [["Request", trial.forget], ["Knobs of", trial.source], ["Seed", trial.seed], ["Trial", trial.number], ["Status", trial.status], [DATA.objective, number(trial.objective, 4)],
    ["Recovery", number(trial.recovery, 4)], ["Seconds", `${number(trial.seconds)} of the method, ${number(trial.total)} on its slot`], ...trial.knobs];
  const list = make("dl", {}, ...facts.filter(fact => fact[1] != null && fact[1] !== "").flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
  const chart = make("div"), back = make("button", { type: "button", on: { click: () => open(make("h2", {}, "Trials"), make("div", { class: "scroll" }, table(others.slice(0, 500)))) } }, "Back to the list");
  const link = trial.key && DATA.runs ? make("p", {}, make("a", { href: DATA.runs + encodeURIComponent(`tags."musweep.key" = '${trial.key}'`), target: "_blank", rel: "noopener" }, "Its run in MLflow")) : "";
  open(make("h2", {}, `${trial.method} on ${trial.forget}, ${DATA.phases[trial.phase]}`), others.length > 1 ? back : "", list, link, trial.reason ? make("pre", {}, trial.reason) : "", chart);
  const points = trial.epochs.split(" ").flatMap((epoch, i) => DATA.curves.map(metric => ({ epoch: Number(epoch), metric, value: trial[metric]?.[i] == null ? null : trial[metric][i] / 10 })));
  const line = { data: { name: "curve" }, mark: { type: "line", point: true }, encoding: { x: { field: "epoch", type: "quantitative", title: "Epoch", axis: { tickMinStep: 1 } },
    y: { field: "value", type: "quantitative", title: "Accuracy (%), validation view", scale: { zero: false } }, color: { field: "metric", type: "nominal", title: null, scale: { range: ["#0072B2", "#D55E00", "#009E73"] } } } };
  if (points.length > DATA.curves.length) embed(chart, line, { curve: points }, 180);
}

// ---- tables

/** Order two values: numbers by size, words by letters, what is missing last. */
function compare(a, b, way) {
  const none = value => value == null || value === "" || value === "–";
  if (none(a) || none(b)) return none(a) - none(b);
  return way * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
}

function sort(head) {
  const place = head.cellIndex, way = head.ariaSort === "descending" ? 1 : head.ariaSort === "ascending" ? -1 : head.classList.contains("number") ? -1 : 1;
  $$("th", head.parentElement).forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
  const value = row => {
    const cell = row.cells[place], text = cell.dataset.v ?? cell.textContent.trim().replace("−", "-");
    const parsed = parseFloat(text.replaceAll(",", ""));
    return Number.isFinite(parsed) && head.classList.contains("number") ? parsed : text;
  };
  for (const body of head.closest("table").tBodies) {
    const lines = [...body.rows].filter(row => !row.classList.contains("group"));
    body.append(...lines.sort((a, b) => compare(value(a), value(b), way)));
  }
}

document.addEventListener("click", event => {
  const target = event.target, chip = target.closest("[data-pick]");
  if (chip) return pick(chip.dataset.pick);
  const head = target.closest("main section .sortable thead th");
  if (head && !target.closest("#trial-list")) return sort(head);
  const data = target.closest("td"), method = data && methodOf(data);
  if (method) cell(method, data.closest("[data-f]")?.dataset.f);
});
document.addEventListener("keydown", event => {
  if (event.key === "Enter" && event.target.matches("thead th, td, tbody tr")) {
    event.preventDefault();  // else the same key presses the button of the dialog that opens
    event.target.click();
  }
  if (event.key.startsWith("Arrow") && event.target.matches("main td")) move(event);
});

/** The method whose trials a cell of a table opens; none of other cells. */
function methodOf(data) {
  if (data.closest("#trial-list, dialog")) return null;
  return $$("thead th", data.closest("table"))[data.cellIndex]?.dataset.col ?? data.closest("[data-m]")?.dataset.m;
}

/** Whether a cell opens trials, and no filter hides it. */
const opens = data => methodOf(data) && [data, data.parentElement, data.closest("tbody")].every(part => getComputedStyle(part).display !== "none");

/** Let the Tab key stop once at each table, on its first cell that opens trials: arrow keys go on from there. */
function stops() {
  $$("main td[tabindex]").forEach(data => data.removeAttribute("tabindex"));
  $$("main table").forEach(whole => $$("tbody td", whole).find(opens)?.setAttribute("tabindex", 0));
}

function move(event) {
  const from = event.target, forward = ["ArrowRight", "ArrowDown"].includes(event.key), sideways = ["ArrowLeft", "ArrowRight"].includes(event.key);
  const line = sideways ? [...from.parentElement.cells] : [...from.closest("table").rows].map(row => row.cells[from.cellIndex]);
  const place = line.indexOf(from), ahead = forward ? line.slice(place + 1) : line.slice(0, place).reverse();
  const next = ahead.find(data => data?.matches("td") && opens(data));
  if (!next) return;
  event.preventDefault();  // the window scrolls only as far as the cell needs
  from.removeAttribute("tabindex");
  next.setAttribute("tabindex", 0);
  next.focus();
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  $$("[data-drawn]").forEach(figure => draw(figure));
}

const dark = matchMedia("(prefers-color-scheme: dark)");
theme(dark.matches ? "dark" : "light");
dark.addEventListener("change", () => theme(dark.matches ? "dark" : "light"));
$("#theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
$("#request")?.addEventListener("change", event => { state.request = event.target.value; update(); });
$("#clear").addEventListener("click", () => {
  state.methods.clear();
  Object.assign(state, { request: "", brush: null });
  if ($("#request")) $("#request").value = "";
  $$("#figure-tradeoff").forEach(figure => draw(figure));
  update();
});
for (const name of ["text", "phase", "status"]) $(`#${name}`).addEventListener("input", event => { state[name] = event.target.value; list(); });
const kinds = (name, titles) => $(`#${name}`).append(...new Set(TRIALS.map(trial => trial[name]))
  .values().map(value => make("option", { value }, titles[value] ?? value)));
kinds("phase", DATA.phases);
kinds("status", {});
$$(".sortable thead th").forEach(head => head.setAttribute("tabindex", 0));
$$("figure[data-figure]").forEach(figure => watcher.observe(figure));
update();
