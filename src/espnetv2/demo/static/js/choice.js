// Pickers of task, network, engine and precision, from what this machine has.

import { make } from "./page.js";

const TASKS = { segmentation: "Segment", classification: "Classify", detection: "Detect" };
const ENGINES = {
  native: "native (C++)", torch: "PyTorch", onnxruntime: "ONNX Runtime", openvino: "OpenVINO",
  executorch: "ExecuTorch", ncnn: "ncnn", litert: "LiteRT",
};
let unique = 0;

function field(label, select) {
  select.id = `choice-${(unique += 1)}`;
  return make("div", { class: "field" }, make("label", { for: select.id, text: label }), select);
}

function fill(select, rows, chosen) {
  select.replaceChildren(...rows.map(([value, text]) => make("option", { value, text })));
  if (rows.some(([value]) => value === chosen)) select.value = chosen;
}

export class Choice {
  // root: where to build; machine: of /networks; changed: told after every change
  constructor(root, machine, { title = "", network, changed = () => {} } = {}) {
    this.machine = machine;
    this.changed = changed;
    this.network = make("select", { "aria-label": "Network", "data-role": "network" });
    this.engine = make("select", { "data-role": "engine" });
    this.precision = make("select", { "data-role": "precision" });
    this.about = make("p", { class: "hint about" });
    this.tasks = make("div", { class: "segments wide", role: "group", "aria-label": "Task" });
    const networkField = field("Network", this.network);
    networkField.classList.add("wide");
    const grid = make("div", { class: "fields" });
    if (title) grid.append(make("h2", { class: "wide", text: title }));
    grid.append(this.tasks, networkField, field("Engine", this.engine),
      field("Precision", this.precision), this.about);
    root.replaceChildren(grid);
    this.network.addEventListener("change", () => this.picked());
    this.engine.addEventListener("change", () => { this.fillPrecisions(); this.picked(); });
    this.precision.addEventListener("change", () => this.picked());
    fill(this.engine, machine.engines.map((one) => [one.name, ENGINES[one.name] ?? one.name]));
    this.fillPrecisions();
    this.show(network ?? machine.first);
  }

  get row() {
    return this.machine.networks.find((one) => one.name === this.network.value);
  }

  get value() {
    return { network: this.network.value, engine: this.engine.value, precision: this.precision.value };
  }

  // Choose a network by name, and its task with it; tells nobody.
  show(name) {
    const row = this.machine.networks.find((one) => one.name === name) ?? this.machine.networks[0];
    this.fillTasks(row.task);
    this.fillNetworks(row.task, row.name);
    this.describe();
  }

  fillTasks(task) {
    const known = Object.keys(TASKS).filter((name) => this.machine.networks.some((one) => one.task === name));
    this.tasks.replaceChildren(...known.map((name) => make("button", {
      type: "button", "aria-pressed": String(name === task), text: TASKS[name], "data-task": name,
      onclick: () => { this.fillTasks(name); this.fillNetworks(name); this.picked(); },
    })));
  }

  fillNetworks(task, chosen) {
    const rows = this.machine.networks.filter((one) => one.task === task);
    fill(this.network, rows.map((one) => [one.name, one.name]), chosen);
  }

  fillPrecisions() {
    const engine = this.machine.engines.find((one) => one.name === this.engine.value);
    fill(this.precision, engine.precisions.map((name) => [name, name]), this.precision.value);
  }

  // Another engine; tells nobody.
  use(engine) {
    if (!engine) return;
    this.engine.value = engine;
    this.fillPrecisions();
    this.describe();
  }

  describe() {
    const built = ["native", "torch"].includes(this.engine.value)
      ? "" : " The first use in this engine exports the network, which can take a minute or two.";
    const from = this.row.own ? "Your own weights." : this.row.about ? `${this.row.about}.` : "No published score.";
    this.about.textContent = from + built;
  }

  picked() {
    this.describe();
    this.changed();
  }
}
