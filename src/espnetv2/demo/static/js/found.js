// Cost and findings of an answer, as tiles, legends and bars.

import { colourOf } from "./stage.js";
import { count, make, milliseconds, percent, tile } from "./page.js";

const STEPS = [["read", "#8aa0b4"], ["prepare", "#5b8fb0"], ["network", "#0f9d8f"], ["decode", "#e0a43a"], ["encode", "#c96f4a"]];

export function showCost(root, answer) {
  const spent = answer.milliseconds;
  const [macs, macsUnit] = count(answer.macs), [size, sizeUnit] = count(answer.parameters);
  const tiles = make("div", { class: "tiles" });
  tiles.append(
    tile(milliseconds(spent.network), "ms", "in the network"),
    tile(milliseconds(spent.server), "ms", "in the server, all in all"),
    tile(macs, `${macsUnit} MACs`, `for ${answer.input.width} x ${answer.input.height} pixels`),
    tile(size, sizeUnit, "parameters"));
  const strip = make("div", { class: "steps", "aria-hidden": "true" });
  for (const [name, colour] of STEPS) {
    const part = make("i", { title: `${name} ${milliseconds(spent[name])} ms` });
    part.style.flexGrow = spent[name];
    part.style.background = colour;
    strip.append(part);
  }
  const words = STEPS.filter(([name]) => spent[name] > 0).map(([name]) => `${name} ${milliseconds(spent[name])}`);
  const engine = `${answer.engine}, ${answer.precision}, ${answer.threads} thread${answer.threads > 1 ? "s" : ""}`;
  const wait = spent.wait >= 50 ? `, after ${Math.round(spent.wait)} ms of waiting` : "";
  root.replaceChildren(tiles, strip, make("p", { class: "hint", text: `${words.join(" · ")} ms${wait}` }),
    make("p", { class: "hint", text: engine }));
  root.hidden = false;
}

// `stage` shows one class or box alone when its row is pressed.
export function showFound(root, answer, stage = null) {
  const parts = [];
  if (answer.task === "classification") parts.push(make("h2", { text: "Most probable" }), bars(answer.result.top));
  if (answer.task === "segmentation") {
    parts.push(make("h2", { text: "Share of the pixels" }), list(stage, answer.classes.map((one) => [one.colour, one.name, percent(one.share)])));
  }
  if (answer.task === "detection") {
    const found = answer.result.detections;
    parts.push(make("h2", { text: found.length === 1 ? "One box" : `${found.length} boxes` }),
      list(stage, found.map((one) => [colourOf(one.label), one.label, percent(one.score, 0)])));
  }
  root.replaceChildren(...parts);
  root.hidden = false;
}

function bars(top) {
  return make("div", { class: "bars" }, ...top.map((one) => {
    const full = make("div", { class: "full" });
    full.style.width = percent(one.score);
    return make("div", {},
      make("div", { class: "label" }, make("span", { text: one.label }), make("span", { class: "share", text: percent(one.score) })),
      make("div", { class: "trough" }, full));
  }));
}

function list(stage, rows) {
  const items = rows.map(([colour, name, value], index) => {
    const swatch = make("span", { class: "swatch" });
    swatch.style.background = colour;
    const button = make("button", { type: "button", "aria-pressed": "false", title: "Show it alone" },
      swatch, make("span", { text: name }), make("span", { class: "share", text: value }));
    button.addEventListener("click", () => {
      if (!stage) return;
      stage.only = stage.only === index ? null : index;
      items.forEach((item, other) => item.firstChild.setAttribute("aria-pressed", String(stage.only === other)));
      stage.draw();
    });
    return make("li", {}, button);
  });
  return make("ul", { class: "found" }, ...items);
}
