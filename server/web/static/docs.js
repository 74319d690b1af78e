// The page of the API's description: reads /openapi.json, lists the operations, searches them, tries them.
// All text enters as text nodes, never as markup: what a server answers to a trial may come from a stranger's mail.

const METHODS = ["get", "post", "put", "patch", "delete"];
const SHOWN_MAX = 200000; // characters of an answer that are shown

const BASE = document.querySelector('meta[name="base"]').content.replace(/\/$/, ""); // the path of PUBLIC_URL

const byId = (id) => document.getElementById(id);

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// Paragraphs and `code`, which is all that the descriptions use.
function prose(text) {
  return (text || "").split(/\n\s*\n/).filter(Boolean).map((paragraph) => {
    const pieces = paragraph.split("`").map((piece, i) => (i % 2 ? make("code", {}, piece) : piece));
    return make("p", {}, pieces);
  });
}

class Schemas {
  constructor(description) {
    this.all = description.components.schemas;
  }

  resolve(schema) {
    const name = schema && schema.$ref ? schema.$ref.split("/").pop() : null;
    return name ? this.all[name] : schema || {};
  }

  // The schema as one reads it: names and types, indented; optional fields with a question mark.
  text(schema, indent = "", seen = []) {
    const found = this.resolve(schema);
    if (schema.$ref && seen.includes(schema.$ref)) return schema.$ref.split("/").pop();
    const path = schema.$ref ? [...seen, schema.$ref] : seen;
    if (found.const !== undefined) return JSON.stringify(found.const);
    if (found.enum) return found.enum.map((one) => JSON.stringify(one)).join(" | ");
    if (found.allOf) return this.text(this.merged(found.allOf), indent, path);
    const options = found.anyOf || found.oneOf;
    if (options) return options.map((one) => this.text(one, indent, path)).join(" | ");
    if (found.type === "array") return `${this.text(found.items || {}, indent, path)}[]`;
    if (found.properties) return this.#fields(found, indent, path);
    if (found.additionalProperties && typeof found.additionalProperties === "object")
      return `{ [name]: ${this.text(found.additionalProperties, indent, path)} }`;
    return [found.type || "any", bounds(found)].filter(Boolean).join(" ");
  }

  #fields(found, indent, path) {
    const required = new Set(found.required || []);
    const inner = `${indent}  `;
    const lines = Object.entries(found.properties).map(
      ([name, field]) => `${inner}${name}${required.has(name) ? "" : "?"}: ${this.text(field, inner, path)}`,
    );
    return `{\n${lines.join("\n")}\n${indent}}`;
  }

  merged(parts) {
    const resolved = parts.map((part) => this.resolve(part));
    return {
      type: "object",
      properties: Object.assign({}, ...resolved.map((part) => part.properties || {})),
      required: resolved.flatMap((part) => part.required || []),
    };
  }
}

function bounds(schema) {
  const said = [];
  if (schema.format) said.push(schema.format);
  if (schema.minimum !== undefined || schema.maximum !== undefined)
    said.push(`${schema.minimum ?? "…"} to ${schema.maximum ?? "…"}`);
  if (schema.minLength > 1 || schema.maxLength !== undefined)
    said.push(`${schema.minLength ?? 0} to ${schema.maxLength ?? "…"} characters`);
  if (schema.default !== undefined && schema.default !== null) said.push(`default ${JSON.stringify(schema.default)}`);
  return said.length ? `(${said.join(", ")})` : "";
}

// What a trial sends, from the fields of its form: also what the curl line is made of.
class Trial {
  constructor(operation) {
    this.operation = operation;
    this.inputs = new Map();
    const media = operation.requestBody && operation.requestBody.content["application/json"];
    this.body = media ? JSON.stringify(media.example, null, 2) : null;
  }

  value(parameter) {
    const input = this.inputs.get(parameter);
    return input ? input.value : "";
  }

  url() {
    const asked = new URLSearchParams();
    let path = this.operation.path;
    for (const parameter of this.operation.parameters || []) {
      const value = this.value(parameter);
      if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, value ? encodeURIComponent(value) : `{${parameter.name}}`);
      else if (value) asked.append(parameter.name, value);
    }
    const query = asked.toString();
    return BASE + path + (query ? `?${query}` : "");
  }

  text() {
    return this.area ? this.area.value : this.body;
  }

  headers() {
    const headers = {};
    const token = byId("token").value.trim();
    const kind = byId("kind").value;
    if (token && this.operation.security.length) headers[kind] = kind === "Authorization" ? `Bearer ${token}` : token;
    if (this.text()) headers["Content-Type"] = "application/json";
    return headers;
  }

  curl() {
    const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
    const lines = [`curl -sS${this.operation.method === "get" ? "" : ` -X ${this.operation.method.toUpperCase()}`}`];
    const headers = this.headers();
    const secured = this.operation.security.some((way) => Object.keys(way).length);
    const named = Object.keys(headers).some((name) => name !== "Content-Type");
    if (secured && !named) headers[this.usual()] = this.usual() === "Authorization" ? "Bearer $TOKEN" : "$TOKEN";
    for (const [name, value] of Object.entries(headers))
      lines.push(value.includes("$TOKEN") ? `-H "${name}: ${value}"` : `-H ${quoted(`${name}: ${value}`)}`);
    if (this.text()) lines.push(`-d ${quoted(this.text())}`);
    lines.push(quoted(location.origin + this.url()));
    return lines.join(" \\\n  ");
  }

  usual() {
    const ways = this.operation.security.flatMap((way) => Object.keys(way));
    return ways.length && ways.every((way) => way === "apiKey") ? "X-API-Key" : "Authorization";
  }

  async send() {
    const began = performance.now();
    const response = await fetch(this.url(), {
      method: this.operation.method.toUpperCase(),
      headers: this.headers(),
      body: this.text() || undefined,
      credentials: "omit",
      cache: "no-store",
    });
    const bytes = await response.arrayBuffer();
    return { response, bytes, milliseconds: Math.round(performance.now() - began) };
  }
}

function shown(answer) {
  const type = answer.response.headers.get("Content-Type") || "";
  if (!/json|text|xml|rfc822/.test(type)) return `${answer.bytes.byteLength} bytes of ${type || "nothing"}`;
  const text = new TextDecoder().decode(answer.bytes).slice(0, SHOWN_MAX);
  if (!type.includes("json")) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function form(trial) {
  const output = make("pre", { hidden: true, "aria-live": "polite" });
  const command = make("pre", {}, trial.curl());
  const refresh = () => { command.textContent = trial.curl(); };
  const fields = (trial.operation.parameters || []).map((parameter) => {
    const id = `${trial.operation.operationId}-${parameter.name}`;
    const input = make("input", { id, placeholder: parameter.required ? "required" : "", autocomplete: "off", oninput: refresh });
    trial.inputs.set(parameter, input);
    return make("div", { class: "row" }, make("label", { for: id }, make("code", {}, parameter.name)), input);
  });
  if (trial.body !== null) {
    trial.area = make("textarea", { "aria-label": "Request body", spellcheck: "false", oninput: refresh });
    trial.area.value = trial.body;
  }
  const submit = async (event) => {
    event.preventDefault();
    refresh();
    output.hidden = false;
    output.textContent = "…";
    try {
      const answer = await trial.send();
      const head = [...answer.response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
      output.textContent = `${answer.response.status} in ${answer.milliseconds} ms\n${head}\n\n${shown(answer)}`;
    } catch (error) {
      output.textContent = `no answer: ${error.message}`;
    }
  };
  const copy = make("button", { type: "button", onclick: () => navigator.clipboard?.writeText(command.textContent) }, "Copy");
  return make(
    "form", { onsubmit: submit },
    make("h3", {}, "curl"), command, make("div", { class: "bar" }, copy),
    make("h3", {}, "Try it"), fields, trial.area,
    make("div", { class: "bar" }, make("button", { class: "go" }, "Send")), output,
  );
}

function parameterTable(parameters) {
  const rows = parameters.map((parameter) =>
    make("tr", {},
      make("td", {}, make("code", {}, parameter.name), " ", parameter.required ? make("span", { class: "must" }, "required") : null),
      make("td", {}, parameter.in),
      make("td", {}, `${parameter.schema.enum ? parameter.schema.enum.join(" | ") : parameter.schema.type || "any"} ${bounds(parameter.schema)}`),
      make("td", {}, prose(parameter.description)),
    ));
  const head = ["Name", "In", "Type", "What it does"].map((text) => make("th", { scope: "col" }, text));
  return make("table", {}, make("thead", {}, make("tr", {}, head)), make("tbody", {}, rows));
}

function statusOf(status, answer, schemas) {
  const content = Object.entries(answer.content || {});
  const body = content.map(([media, { schema }]) =>
    make("div", {}, make("span", { class: "soft" }, media), Object.keys(schema).length ? make("pre", {}, schemas.text(schema)) : null));
  const said = prose(answer.description).flatMap((paragraph) => [...paragraph.childNodes]);
  return make("details", { class: "status" }, make("summary", {}, make("b", { class: `s${status[0]}` }, status), " ", said), body);
}

function security(operation) {
  const ways = operation.security.map((way) =>
    Object.entries(way).map(([name, scopes]) => (scopes.length ? `${name} (${scopes.join(", ")})` : name)).join(" and ") || "nobody in particular");
  return ways.length ? make("p", { class: "soft" }, "Who may: ", ways.join(", or "), ".") : null;
}

function inside(operation, schemas) {
  const media = operation.requestBody && operation.requestBody.content["application/json"];
  const parts = [...prose(operation.description), security(operation)];
  if (operation.parameters) parts.push(make("h3", {}, "Parameters"), parameterTable(operation.parameters));
  if (media) {
    const optional = operation.requestBody.required ? "" : " (may be left out)";
    parts.push(make("h3", {}, `Request body${optional}`), make("pre", {}, schemas.text(media.schema)));
  }
  parts.push(make("h3", {}, "Answers"));
  for (const [status, answer] of Object.entries(operation.responses)) parts.push(statusOf(status, answer, schemas));
  parts.push(form(new Trial(operation)));
  return make("div", { class: "inside" }, parts);
}

function block(operation, schemas) {
  const method = make("span", { class: `method ${operation.method}` }, operation.method.toUpperCase());
  const summary = make("summary", {}, method, make("span", { class: "path" }, operation.path), make("span", { class: "says" }, operation.summary));
  const details = make("details", { class: "operation", id: operation.operationId }, summary);
  const fill = () => { if (details.open && details.childElementCount === 1) details.append(inside(operation, schemas)); };
  details.addEventListener("toggle", fill);
  return details;
}

function entry(operation) {
  const method = make("span", { class: `method ${operation.method}` }, operation.method.toUpperCase());
  return make("li", {}, make("a", { href: `#${operation.operationId}` }, method, make("span", {}, operation.summary)));
}

function operations(description) {
  return Object.entries(description.paths).flatMap(([path, methods]) =>
    METHODS.filter((method) => methods[method]).map((method) => ({ ...methods[method], path, method })));
}

function render(description) {
  const schemas = new Schemas(description);
  const all = operations(description);
  const found = [];
  byId("version").textContent = description.info.version;
  byId("introduction").append(...prose(description.info.description));
  for (const tag of description.tags) {
    const members = all.filter((operation) => operation.tags[0] === tag.name);
    const section = make("section", {}, make("h2", {}, tag.name), prose(tag.description));
    const group = make("div", {}, make("h2", {}, tag.name));
    const list = make("ul");
    for (const operation of members) {
      const pair = [block(operation, schemas), entry(operation)];
      section.append(pair[0]);
      list.append(pair[1]);
      found.push({ text: `${operation.method} ${operation.path} ${operation.summary} ${operation.description} ${tag.name}`.toLowerCase(), pair });
    }
    group.append(list);
    byId("families").append(section);
    byId("index").append(group);
  }
  byId("state").textContent = "";
  return found;
}

function search(found) {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const { text, pair } of found) {
    const fits = words.every((word) => text.includes(word));
    count += fits;
    for (const element of pair) element.hidden = !fits;
  }
  for (const group of document.querySelectorAll("section, nav > div"))
    group.hidden = !group.querySelector("details.operation:not([hidden]), li:not([hidden])");
  byId("state").textContent = words.length ? `${count} of ${found.length} operations` : "";
}

function openNamed() {
  const details = byId(decodeURIComponent(location.hash.slice(1)));
  if (!details || details.tagName !== "DETAILS") return;
  details.open = true;
  details.scrollIntoView();
}

async function start() {
  const response = await fetch(`${BASE}/openapi.json`);
  if (!response.ok) throw new Error(`openapi.json: ${response.status}`);
  const found = render(await response.json());
  byId("search").addEventListener("input", () => search(found));
  byId("credentials").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", openNamed);
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) return;
    event.preventDefault();
    byId("search").focus();
  });
  openNamed();
}

start().catch((error) => { byId("state").textContent = `The description could not be read: ${error.message}`; });
