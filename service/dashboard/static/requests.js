// Writes go through the REST API; what it refuses is told in its own words.

/** An answer that is no success. problems: [{field, message, choices}]. */
export class Refused extends Error {
  constructor(message, problems = []) {
    super(message);
    this.problems = problems;
  }
}

async function send(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The service does not answer.");
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(found.detail ?? `The service answered ${answer.status}.`, found.errors);
  return found;
}

export const post = (path, body, headers = {}, signal = undefined) => write("POST", path, body, headers, signal);
export const patch = (path, body, headers = {}) => write("PATCH", path, body, headers);

function write(method, path, body, headers, signal = undefined) {
  const options = { method, headers: { ...headers }, signal };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  return send(path, options);
}

export const remove = (path) => send(path, { method: "DELETE" });
