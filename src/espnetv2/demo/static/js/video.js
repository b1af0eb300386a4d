// The tab Video: a clip goes in and comes out drawn on; or the camera, as fast as the engine is.

import { get, post, remove } from "./api.js";
import { Choice } from "./choice.js";
import { showFound } from "./found.js";
import { byId, make, milliseconds, percent, say } from "./page.js";
import { openCamera, snapshot } from "./source.js";
import { Stage } from "./stage.js";

export function startVideo(machine) {
  const message = byId("video-message"), result = byId("video-result"), live = byId("video-live");
  const liveBox = make("div");
  live.replaceWith(liveBox);
  const stage = new Stage(liveBox, { empty: "" });
  stage.hint.remove();
  const choice = new Choice(byId("video-choice"), machine, {});
  let clip = null, camera = null;
  byId("video-hint").textContent = machine.clips
    ? `Up to ${machine.limits.clip_bytes / 1e6} MB; the first ${machine.limits.clip_frames} frames.`
    : 'Clips need the package av: pip install "espnetv2[video]".';
  byId("video-file").disabled = !machine.clips;

  const reset = () => {
    camera?.getTracks().forEach((track) => track.stop());
    camera = null;
    if (clip) remove(`/clips/${clip}`).catch(() => {});
    clip = null;
    result.pause();
    result.hidden = liveBox.hidden = true;
    for (const id of ["video-save", "video-progress", "video-found", "video-stop"]) byId(id).hidden = true;
    byId("video-empty").hidden = false;
    say(message, "");
  };

  const film = async (file) => {
    reset();
    if (file.size > machine.limits.clip_bytes) {
      say(message, `the clip is larger than ${machine.limits.clip_bytes / 1e6} MB; cut it`, true);
      return;
    }
    say(message, "sending");
    byId("video-stop").hidden = false;
    try {
      const sent = await post("/clips", { file, ...choice.value });
      clip = sent.id;
      say(message, "");
      byId("video-progress").hidden = false;
      await follow(sent.id);
    } catch (error) {
      say(message, error.message, true);
    } finally {
      byId("video-stop").hidden = true;
    }
  };

  const follow = async (id) => {
    while (clip === id) {
      const now = await get(`/clips/${id}`);
      const bar = byId("video-bar"), total = Math.min(now.total || Infinity, machine.limits.clip_frames);
      if (now.total) bar.value = now.frames / total; else bar.removeAttribute("value");
      byId("video-count").textContent = now.state === "waiting" ? "waiting for its turn"
        : `${now.frames}${now.total ? ` of ${total}` : ""} frames · ${now.frames_per_second.toFixed(1)} a second`
          + ` · ${milliseconds(now.network_milliseconds)} ms each in the network`;
      if (now.state === "failed") throw new Error(now.error);
      if (now.state === "done") {
        bar.value = 1;
        finish(id, now);
        return;
      }
      await new Promise((wake) => setTimeout(wake, 300));
    }
  };

  const finish = (id, now) => {
    byId("video-empty").hidden = true;
    result.src = `/clips/${id}/video`;
    result.hidden = false;
    byId("video-save").href = result.src;
    byId("video-save").hidden = false;
    const found = now.summary.mean_shares ?? now.summary.frames_by_best ?? now.summary.frames_with;
    const share = (value) => (now.summary.mean_shares ? percent(value) : `${value} frames`);
    byId("video-found").replaceChildren(
      make("h2", { text: now.summary.mean_shares ? "Mean share of the pixels" : "Frames with it" }),
      make("ul", { class: "found" }, ...Object.entries(found).slice(0, 12).map(([name, value]) =>
        make("li", {}, make("div", { class: "row" }, make("span", { class: "grow", text: name }),
          make("span", { class: "share", text: share(value) }))))));
    byId("video-found").hidden = false;
  };

  const run = async () => {
    reset();
    let stream;
    try {
      stream = camera = await openCamera();
    } catch (error) {
      say(message, error.message, true);
      return;
    }
    const view = make("video", { autoplay: true, playsinline: true });
    view.muted = true;
    view.srcObject = stream;
    await view.play();
    byId("video-empty").hidden = true;
    liveBox.hidden = byId("video-stop").hidden = false;
    let rate = 0, before = performance.now(), frames = 0;
    while (camera === stream) {
      if (byId("panel-video").hidden || !view.videoWidth) {
        await new Promise((wake) => setTimeout(wake, 100));
        continue;
      }
      const canvas = document.createElement("canvas");
      const frame = await snapshot(view, canvas);
      try {
        const answer = await post("/predict", { file: frame, ...choice.value, mask: "true" });
        if (camera !== stream) break;
        await stage.setAnswer(canvas, answer);
        const now = performance.now();
        rate = frames ? 0.8 * rate + 0.2 * (1000 / (now - before)) : 1000 / (now - before);
        before = now;
        frames += 1;
        say(message, `${rate.toFixed(1)} frames a second · ${milliseconds(answer.milliseconds.network)} ms in the network`);
        showFound(byId("video-found"), answer);
        byId("panel-video").dataset.frames = String(frames);
      } catch (error) {
        reset();
        say(message, error.message, true);
      }
    }
  };

  byId("video-file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) film(file);
  });
  byId("video-camera").addEventListener("click", run);
  byId("video-stop").addEventListener("click", reset);
  addEventListener("pagehide", () => { if (clip) remove(`/clips/${clip}`).catch(() => {}); });
  return { shown: () => {} };
}
