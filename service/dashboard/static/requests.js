// Writes go through the REST API; what it refuses is told in its own words.

export async function post(path, body, headers = {}) {
  const options = { method: "POST", headers: { ...headers } };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The service does not answer.");
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.detail ?? `The service answered ${answer.status}.`);
  return found;
}
