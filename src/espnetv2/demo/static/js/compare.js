// The tab Compare: two choices on one picture.

import { post, queueText } from "./api.js";
import { Choice } from "./choice.js";
import { byId, count, make, milliseconds, percent, say, tile } from "./page.js";
import { picture, onPicture, sourceBar, usePreview } from "./source.js";
import { Stage } from "./stage.js";
import { slider } from "./try.js";

// Two widths with the same classes, where this machine has them; else one network in two engines.
function pair(machine) {
  const seen = new Map();
  for (const one of machine.networks.filter((row) => row.task === "segmentation" && !row.own)) {
    const key = one.model.replace(/_s\d.*$/, "") + one.name.slice(one.name.indexOf("."));
    if (seen.has(key)) return [seen.get(key), one.name];
    seen.set(key, one.name);
  }
  return [machine.first, machine.first];
}

export function startCompare(machine) {
  const message = byId("compare-message"), verdict = byId("compare-verdict");
  const stages = ["First", "Second", "Difference"].map((title) => {
    const box = make("div", { class: "stage" });
    const caption = make("figcaption", { text: title });
    byId("compare-stages").append(make("figure", { class: "card" }, box, caption));
    return Object.assign(new Stage(box, { empty: title }), { caption });
  });
  const figures = byId("compare-stages");
  figures.hidden = true;
  sourceBar(byId("compare-source"), machine.limits);
  const [one, two] = pair(machine);
  const first = new Choice(byId("compare-choice-first"), machine, { title: "First", network: one });
  const second = new Choice(byId("compare-choice-second"), machine, { title: "Second", network: two });
  if (one === two) second.use(machine.engines.at(1)?.name);

  const run = async () => {
    if (!picture.blob) return;
    byId("compare-run").disabled = true;
    say(message, "working");
    try {
      const answer = await post("/compare", {
        file: picture.blob, first: first.value.network, second: second.value.network,
        first_engine: first.value.engine, second_engine: second.value.engine,
        first_precision: first.value.precision, second_precision: second.value.precision,
      }, { waiting: (position) => say(message, queueText(position)) });
      await show(answer);
      say(message, answer.note);
    } catch (error) {
      say(message, error.message, true);
    } finally {
      byId("compare-run").disabled = false;
    }
  };

  const show = async (answer) => {
    if (!picture.image) {
      const seen = await post("/predict", { file: picture.blob, network: answer.first.network, preview: "true" });
      await usePreview(seen.preview);
    }
    await stages[0].setAnswer(picture.image, answer.first);
    await stages[1].setAnswer(picture.image, answer.second);
    stages[2].root.parentElement.hidden = !answer.difference;
    if (answer.difference) await stages[2].setAnswer(picture.image, answer.first, answer.difference);
    [answer.first, answer.second].forEach((side, index) => {
      const best = side.task === "classification"
        ? ` · ${side.result.top[0].label} ${percent(side.result.top[0].score, 0)}`
        : side.task === "detection" ? ` · ${side.result.detections.length} boxes` : "";
      stages[index].caption.textContent = `${side.network} · ${side.engine} ${side.precision}${best}`;
    });
    stages[2].caption.textContent = "where the two name different classes";
    const ratio = answer.speed_ratio, faster = ratio >= 1 ? "second" : "first";
    const [macs1, unit1] = count(answer.first.macs), [macs2, unit2] = count(answer.second.macs);
    verdict.replaceChildren(
      tile((ratio >= 1 ? ratio : 1 / ratio).toFixed(2), "x", `faster is the ${faster}`),
      tile(`${milliseconds(answer.first_milliseconds)} / ${milliseconds(answer.second_milliseconds)}`, "ms",
        `network alone, median of ${answer.runs} in turns`),
      tile(`${macs1} ${unit1 === unit2 ? "" : `${unit1} `}/ ${macs2}`, `${unit2} MACs`, "multiply-adds"));
    if (answer.agreement !== null) {
      const what = answer.first.task === "segmentation" ? "of the pixels agree" : "common probability";
      verdict.append(tile((100 * answer.agreement).toFixed(1), "%", what));
    }
    verdict.hidden = figures.hidden = false;
    byId("compare-opacity-bar").hidden = answer.first.task !== "segmentation";
  };

  byId("compare-run").addEventListener("click", run);
  onPicture(() => { verdict.hidden = figures.hidden = byId("compare-opacity-bar").hidden = true; });
  slider("compare-opacity", stages);
  return { shown: () => {} };
}
