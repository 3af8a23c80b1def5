// The aggregator's HTTP API. A token, once given, lives as long as this tab.

const TIMEOUT_MS = 8000;
const TOKEN = "rivulet-token";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function useToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export function hasToken() {
  return sessionStorage.getItem(TOKEN) !== null;
}

export function get(path) {
  return send("GET", path);
}

export function patch(path, change) {
  return send("PATCH", path, change);
}

async function send(method, path, body) {
  const headers = { Accept: "application/json" };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new ApiError(0, late ? "The service takes too long to answer." : "The service does not answer.");
  }
  if (!response.ok) throw new ApiError(response.status, await reason(response));
  return response.json();
}

async function reason(response) {
  const answer = await response.json().catch(() => null);
  const said = answer?.detail ?? answer?.error;
  return typeof said === "string" ? said : `The service answered ${response.status}.`;
}
