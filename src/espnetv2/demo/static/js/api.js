// Requests to the server, and waiting for a turn.

export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function answerOf(response) {
  if (response.status === 204) return null;
  let body = null;
  try {
    body = await response.json();
  } catch {
    throw new Refusal(`the server answered ${response.status} without a reason`, response.status);
  }
  if (!response.ok) throw new Refusal(body.error ?? `refused (${response.status})`, response.status);
  return body;
}

export async function get(path) {
  return answerOf(await request(path, {}));
}

async function request(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("the server does not answer; is `espnetv2 demo` still running?", 0);
  }
}

// Sends a form. `waiting` is told the place in the queue while there is one.
export async function post(path, fields, { waiting = () => {}, signal } = {}) {
  const ticket = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`.slice(0, 60);
  const form = new FormData();
  // a fixed name: the file's own stays on this machine
  for (const [name, value] of Object.entries(fields)) {
    if (value instanceof Blob) form.append(name, value, "upload");
    else if (value !== undefined && value !== null) form.append(name, value);
  }
  form.append("ticket", ticket);
  let over = false;
  const watch = async () => {
    while (!over) {
      await new Promise((wake) => setTimeout(wake, 500));
      if (over) return;
      try {
        const { position } = await get(`/queue/${ticket}`);
        if (!over && position !== null) waiting(position);
      } catch { /* the answer itself will say */ }
    }
  };
  watch();
  try {
    return await answerOf(await request(path, { method: "POST", body: form, signal }));
  } finally {
    over = true;
  }
}

export async function remove(path) {
  return answerOf(await request(path, { method: "DELETE", keepalive: true }));
}

export const queueText = (position) =>
  position === 0 ? "working" : `in the queue: ${position} before you`;
