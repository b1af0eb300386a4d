// The tab Try: one picture, one network.

import { post, queueText } from "./api.js";
import { Choice } from "./choice.js";
import { showCost, showFound } from "./found.js";
import { byId, say } from "./page.js";
import { acceptDrops, onPicture, picture, sourceBar, usePreview } from "./source.js";
import { Stage } from "./stage.js";

export function startTry(machine) {
  const stage = new Stage(byId("try-stage"));
  const message = byId("try-message");
  const take = sourceBar(byId("try-source"), machine.limits);
  acceptDrops(byId("try-stage"), take);
  let latest = 0, running = null;

  const look = async () => {
    if (!picture.blob || byId("panel-try").hidden) return;
    const mine = (latest += 1);
    running?.abort();
    running = new AbortController();
    stage.busy = true;
    say(message, "working");
    try {
      const answer = await post("/predict",
        { file: picture.blob, ...choice.value, mask: "true", preview: String(!picture.image) },
        { waiting: (position) => mine === latest && say(message, queueText(position)), signal: running.signal });
      if (mine !== latest) return;
      if (answer.preview) await usePreview(answer.preview);
      await stage.setAnswer(picture.image, answer);
      showCost(byId("try-cost"), answer);
      showFound(byId("try-found"), answer, stage);
      byId("try-opacity-bar").hidden = answer.task === "classification";
      say(message, "");
      byId("panel-try").dataset.shown = String(Number(byId("panel-try").dataset.shown ?? 0) + 1);
    } catch (error) {
      if (mine !== latest) return;
      say(message, error.message, true);
      byId("try-cost").hidden = byId("try-found").hidden = true;
    } finally {
      if (mine === latest) stage.busy = false;
    }
  };

  const choice = new Choice(byId("try-choice"), machine, { changed: look });
  onPicture(() => {
    stage.setPicture(picture.image);
    look();
  });
  slider("try-opacity", [stage]);
  return { shown: look, use: (network) => choice.show(network), take };
}

export function slider(id, stages) {
  const input = byId(id);
  input.addEventListener("input", () => {
    byId(`${id}-value`).textContent = `${input.value} %`;
    stages.forEach((stage) => {
      stage.opacity = input.value / 100;
      stage.draw();
    });
  });
}
