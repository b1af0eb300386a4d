// The tab Inside: one EESP unit, opened.

import { get, post, queueText } from "./api.js";
import { byId, fromAddress, make, percent, say } from "./page.js";
import { onPicture, picture, sourceBar } from "./source.js";

const LIMITS = [["1/2", 13], ["1/4", 11], ["1/8", 9], ["1/16", 7], ["1/32", 5]];

export function startInside(machine) {
  const message = byId("inside-message");
  const networks = machine.networks.filter((one) => one.unfolds);
  const network = make("select", { id: "inside-network" }), unit = make("select", { id: "inside-unit" });
  byId("inside-choice").append(
    make("div", { class: "field" }, make("label", { for: network.id, text: "Network" }), network),
    make("div", { class: "field" }, make("label", { for: unit.id, text: "EESP unit" }), unit));
  sourceBar(byId("inside-source"), machine.limits);
  network.append(...networks.map((one) => make("option", { value: one.name, text: one.name })));
  if (networks.some((one) => one.name === machine.first)) network.value = machine.first;
  let units = [], opened = null, maps = null, latest = 0;

  const listUnits = async () => {
    if (!network.value) return say(message, "No network with EESP units is on this machine.", true);
    say(message, "opening");
    try {
      units = await get(`/inside/units?network=${encodeURIComponent(network.value)}`);
    } catch (error) {
      return say(message, error.message, true);
    }
    const rows = units.map((one) => make("option", { value: one.name, text: one.title }));
    unit.replaceChildren(...rows);
    unit.value = (units.find((one) => one.name.endsWith("stages.1.units.0")) ?? units[0]).name;
    return open();
  };

  const open = async () => {
    if (!picture.blob || !unit.value || byId("panel-inside").hidden) return;
    const mine = (latest += 1), chosen = unit.value;
    say(message, "working");
    try {
      const found = await post("/inside", { file: picture.blob, network: network.value, unit: chosen },
        { waiting: (position) => say(message, queueText(position)) });
      if (mine !== latest) return;
      opened = found;
      maps = {
        input: await fromAddress(opened.input),
        before: await Promise.all(opened.branches.map((one) => fromAddress(one.before))),
        after: await Promise.all(opened.branches.map((one) => fromAddress(one.after))),
      };
      byId("inside-opened").hidden = false;
      buildMaps();
      say(message, "");
      await measure(mine, chosen);
    } catch (error) {
      if (mine === latest) say(message, error.message, true);
    }
  };

  const tileOf = (image, label) => {
    const canvas = make("canvas", { role: "img", "aria-label": label });
    canvas.width = opened.tile.width;
    canvas.height = opened.tile.height;
    canvas.paint = (channel) => canvas.getContext("2d").drawImage(image,
      channel * canvas.width, 0, canvas.width, canvas.height, 0, 0, canvas.width, canvas.height);
    return canvas;
  };

  const buildMaps = () => {
    const slider = byId("inside-channel");
    slider.max = String(opened.channels - 1);
    if (Number(slider.value) >= opened.channels) slider.value = "0";
    const heads = opened.branches.map((one, index) => make("div", { class: "head" },
      make("b", { text: `branch ${index + 1}` }), `dilation ${one.dilation}, sees ${one.sees} x ${one.sees}`));
    const line = (name, images) => [make("div", { class: "rowname", text: name }),
      ...images.map((image, index) => tileOf(image, `${name}, branch ${index + 1}`))];
    const input = tileOf(maps.input, "reduced input");
    byId("inside-maps").replaceChildren(make("div", {}, make("div", { class: "rowname", text: "reduced input" }), input),
      ...heads, ...line("before fusion", maps.before), ...line("after fusion", maps.after));
    paint();
  };

  const paint = () => {
    const channel = Number(byId("inside-channel").value);
    byId("inside-channel-value").textContent = `${channel + 1} of ${opened.channels}`;
    byId("inside-maps").querySelectorAll("canvas").forEach((canvas) => canvas.paint(channel));
  };

  const measure = async (mine, chosen) => {
    for (const id of ["inside-grids", "inside-fields"]) {
      byId(id).replaceChildren(make("p", { class: "hint", text: "measuring gradients; a few seconds at the first time" }));
    }
    const query = new URLSearchParams({ network: network.value, unit: chosen });
    const fields = await get(`/inside/fields?${query}`);
    if (mine !== latest) return;
    await showGrids(fields);
    await showFields(fields);
    showLimits(units.find((one) => one.name === chosen));
    byId("panel-inside").dataset.measured = chosen;
  };

  const showGrids = async (fields) => {
    const cell = async (grid, label) => {
      const image = await fromAddress(grid.picture);
      const canvas = make("canvas", { role: "img", "aria-label": label });
      const shown = (image.width + 3) / 2, edge = (image.width - shown) / 2; // one pixel around the limit
      canvas.width = canvas.height = shown * 16;
      const pen = canvas.getContext("2d"), middle = Math.floor(shown / 2), reach = Math.floor(grid.theoretical / 2);
      pen.fillStyle = getComputedStyle(document.body).getPropertyValue("--well");
      pen.fillRect(0, 0, canvas.width, canvas.height);
      for (let y = middle - reach; y <= middle + reach; y += 1) {
        for (let x = middle - reach; x <= middle + reach; x += 1) {
          pen.fillStyle = (x + y) % 2 ? "#9aa5a1" : "#b9c2be";
          pen.fillRect(16 * x, 16 * y, 16, 16);
        }
      }
      pen.imageSmoothingEnabled = false;
      pen.drawImage(image, edge, edge, shown, shown, 0, 0, canvas.width, canvas.height);
      const holes = grid.gridding ? `${percent(grid.gridding, 0)} holes` : "no holes";
      return make("figure", {}, canvas, make("figcaption", { text: `field ${grid.theoretical} x ${grid.theoretical}, ${holes}` }));
    };
    const line = async (name, grids) => [make("div", { class: "rowname", text: name }),
      ...await Promise.all(grids.map((grid, index) => cell(grid, `${name}, branch ${index + 1}`)))];
    const heads = fields.dilations.map((one, index) => make("div", { class: "head" },
      make("b", { text: `branch ${index + 1}` }), `dilation ${one}`));
    byId("inside-grids").replaceChildren(make("div"), ...heads,
      ...await line("before fusion", fields.before), ...await line("after fusion", fields.after));
  };

  const showFields = async (fields) => {
    const one = async (grid, title) => {
      const image = await fromAddress(grid.picture);
      const canvas = make("canvas", { role: "img", "aria-label": title });
      const side = (canvas.width = canvas.height = 512), scale = side / image.width;
      const pen = canvas.getContext("2d");
      pen.drawImage(image, 0, 0, side, side);
      const frame = (extent, dash, colour) => {
        const wide = Math.min(extent * scale, side - 4);
        pen.setLineDash(dash);
        pen.strokeStyle = colour;
        pen.lineWidth = 2.5;
        pen.strokeRect((side - wide) / 2, (side - wide) / 2, wide, wide);
      };
      frame(grid.theoretical, [10, 8], "#ffffff");
      frame(grid.extent, [], "#5ef2dc");
      return make("figure", {}, make("h3", { text: title }), canvas, make("figcaption", {
        text: `may see ${Math.round(grid.theoretical)} x ${Math.round(grid.theoretical)} pixels (dashed); `
          + `moved visibly: an area as large as ${grid.extent.toFixed(0)} x ${grid.extent.toFixed(0)} (solid)`,
      }));
    };
    byId("inside-fields").replaceChildren(await one(fields.fused, "with fusion"), await one(fields.unfused, "without fusion"));
  };

  const showLimits = (row) => {
    const body = LIMITS.map(([scale, limit]) => make("tr", { class: limit === row.limit ? "here" : "" },
      make("td", { text: scale }), make("td", { text: `${limit} x ${limit}` }),
      make("td", { text: [1, 2, 3, 4].map((d) => (2 * d + 1 <= limit ? d : 1)).sort((a, b) => a - b).join(", ") }),
      make("td", { text: limit === row.limit ? "this unit" : "" })));
    byId("inside-limits").replaceChildren(make("table", {}, make("thead", {}, make("tr", {},
      make("th", { text: "resolution" }), make("th", { text: "widest view" }),
      make("th", { text: "dilations" }), make("th"))), make("tbody", {}, ...body)));
  };

  network.addEventListener("change", listUnits);
  unit.addEventListener("change", open);
  byId("inside-channel").addEventListener("input", () => opened && paint());
  onPicture(open);
  return { shown: () => (units.length ? open() : listUnits()) };
}
