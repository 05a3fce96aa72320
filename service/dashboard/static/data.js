// JSON from the service; asked again with its ETag, so that what has not changed is not sent twice.
const kept = new Map();

export async function load(url) {
  const known = kept.get(url);
  const headers = { Accept: "application/json" };
  if (known) headers["If-None-Match"] = known.etag;
  const answer = await fetch(url, { headers });
  if (answer.status === 304) return known.body;
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? `The service answered ${answer.status}.`);
  const body = await answer.json();
  if (answer.headers.get("ETag")) kept.set(url, { etag: answer.headers.get("ETag"), body });
  return body;
}
