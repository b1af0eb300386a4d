// The tab Own: runs of `espnetv2 train`.

import { get } from "./api.js";
import { byId, count, make } from "./page.js";

const SPACE = "http://www.w3.org/2000/svg";

export function startOwn(machine, tryNetwork) {
  const root = byId("own-runs");
  const shown = async () => {
    if (!machine.runs) {
      root.replaceChildren(make("div", { class: "card" }, make("h2", { text: "Look at your own runs" }),
        make("p", { class: "lead", text: "Start the page with the folder that holds them; the browser names no paths." }),
        make("code", { text: "espnetv2 demo --runs DIR" })));
      return;
    }
    const runs = await get("/runs");
    root.replaceChildren(...runs.map((run) => card(run, tryNetwork)));
    if (!runs.length) root.replaceChildren(make("p", { class: "message", text: "No run has written its weights yet." }));
  };
  return { shown };
}

function card(run, tryNetwork) {
  const { summary, history } = run;
  const rows = [["network", summary.model], ["task", summary.task], ["data", summary.data]];
  for (const [name, value] of Object.entries(summary.metrics ?? {})) rows.push([name, Number(value).toPrecision(4)]);
  if (summary.parameters) rows.push(["parameters", count(summary.parameters).join(" ")]);
  if (summary.epochs) rows.push(["epochs", `${summary.epochs}, best ${summary.best_epoch}`]);
  const list = make("dl");
  for (const [name, value] of rows) {
    if (value !== undefined && value !== null) list.append(make("dt", { text: name }), make("dd", { text: value }));
  }
  return make("div", { class: "card run" }, make("h2", { text: run.name }), ...curves(history), list,
    make("button", { class: "main", text: "Try it", onclick: () => tryNetwork(`run:${run.name}`) }));
}

// Training and validation loss by epoch.
function curves(history) {
  const lines = [["loss", "var(--soft)"], ["val_loss", "var(--accent)"]]
    .map(([name, colour]) => [name, colour, (history[name] ?? []).map((value, x) => [x, value]).filter(([, y]) => y !== null)])
    .filter(([, , points]) => points.length > 1);
  if (!lines.length) return [];
  const all = lines.flatMap(([, , points]) => points);
  const [low, high] = [Math.min(...all.map(([, y]) => y)), Math.max(...all.map(([, y]) => y))];
  const width = Math.max(...all.map(([x]) => x)) || 1;
  const drawing = document.createElementNS(SPACE, "svg");
  drawing.setAttribute("viewBox", "0 0 300 90");
  drawing.setAttribute("preserveAspectRatio", "none");
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", `loss from ${high.toPrecision(3)} to ${low.toPrecision(3)}`);
  for (const [name, colour, points] of lines) {
    const line = document.createElementNS(SPACE, "polyline");
    const place = ([x, y]) => `${6 + (288 * x) / width},${82 - (74 * (y - low)) / (high - low || 1)}`;
    line.setAttribute("points", points.map(place).join(" "));
    line.setAttribute("fill", "none");
    line.style.stroke = colour;
    line.setAttribute("stroke-width", "2");
    line.setAttribute("vector-effect", "non-scaling-stroke");
    const title = document.createElementNS(SPACE, "title");
    title.textContent = name;
    line.append(title);
    drawing.append(line);
  }
  const legend = make("p", { class: "legend" }, ...lines.map(([name, colour]) => {
    const mark = make("i");
    mark.style.background = colour;
    return make("span", {}, mark, name === "loss" ? "loss in training" : "loss in validation");
  }));
  return [drawing, legend];
}
