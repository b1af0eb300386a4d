// Starts the page: tabs, health, and what each tab does.

import { get } from "./api.js";
import { startCompare } from "./compare.js";
import { startInside } from "./inside.js";
import { startOwn } from "./own.js";
import { byId } from "./page.js";
import { picture, useSample } from "./source.js";
import { startTry } from "./try.js";
import { startVideo } from "./video.js";

const NAMES = ["try", "compare", "video", "inside", "own"];
const parts = {};

function open(name, focus = false) {
  for (const other of NAMES) {
    const tab = byId(`tab-${other}`), chosen = other === name;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    byId(`panel-${other}`).hidden = !chosen;
  }
  if (focus) byId(`tab-${name}`).focus();
  history.replaceState(null, "", `#${name}`);
  parts[name]?.shown();
}

function tabs() {
  NAMES.forEach((name, index) => {
    const tab = byId(`tab-${name}`);
    tab.addEventListener("click", () => open(name));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const target = step ? NAMES[(index + step + NAMES.length) % NAMES.length]
        : { Home: NAMES[0], End: NAMES.at(-1) }[event.key];
      if (!target) return;
      event.preventDefault();
      open(target, true);
    });
  });
}

async function watchHealth() {
  const chip = byId("health");
  for (;;) {
    let wait = 5000;
    try {
      const health = await get("/health");
      chip.className = `health ${health.trouble ? "bad" : health.ready ? "ready" : ""}`;
      chip.textContent = health.trouble ? "trouble" : !health.ready ? "warming up"
        : health.waiting > 1 ? `${health.waiting} in the queue` : "ready";
      chip.title = health.trouble;
      if (!health.ready) wait = 500;
    } catch {
      chip.className = "health bad";
      chip.textContent = "no answer";
    }
    await new Promise((wake) => setTimeout(wake, wait));
  }
}

async function start() {
  watchHealth();
  byId("origin").textContent = location.origin;
  const machine = await get("/networks");
  byId("offer").textContent = `${machine.networks.length} networks on this machine, ${machine.engines.length} engines`
    + (machine.absent ? `; ${machine.absent} more published ones come with a download: espnetv2 predict NAME PICTURE` : "");
  parts.try = startTry(machine);
  parts.compare = startCompare(machine);
  parts.video = startVideo(machine);
  parts.inside = startInside(machine);
  parts.own = startOwn(machine, (network) => {
    parts.try.use(network);
    open("try", true);
  });
  tabs();
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (file) parts.try.take(file);
  });
  const asked = location.hash.slice(1);
  open(NAMES.includes(asked) ? asked : "try");
  if (!picture.blob) await useSample("street");
  document.body.dataset.started = "true";
}

start().catch((error) => {
  byId("health").textContent = "trouble";
  byId("health").classList.add("bad");
  byId("try-message").textContent = error.message;
});
