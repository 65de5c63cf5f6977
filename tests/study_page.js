// Runs the script of study.html without a browser: reads {script, content, storage, events} from the standard
// input, presses the keys and buttons, and prints what the page shows, keeps and would save.
const { script, content, storage, events } = JSON.parse(require("fs").readFileSync(0, "utf8"));

class Element {
  constructor() { this.children = []; this.dataset = {}; this.attributes = {}; this.textContent = ""; }
  append(...children) { this.children.push(...children); }
  replaceChildren() { this.children = []; }
  setAttribute(name, value) { this.attributes[name] = String(value); }
}

const saves = [];
const elements = { content: { textContent: content } };
let onKey;
const document = {
  getElementById: id => (elements[id] ??= new Element()),
  createElement: () => Object.assign(new Element(), { click() { saves.push(this.download); } }),
  addEventListener: (_, listener) => { onKey = listener; },
};
const kept = { ...storage };
const localStorage = { getItem: key => kept[key] ?? null, setItem: (key, value) => { kept[key] = value; } };
const page = new Function("document", "localStorage", "URL", "Blob", script + "\nreturn { exported, state: () => ({ at, asked, mine }) };")(
  document, localStorage, { createObjectURL: () => "blob:" }, class {});
for (const event of events) {
  if (event.click) elements[event.click].onclick();
  else onKey({ preventDefault() {}, ...event });
}
const { at, asked, mine } = page.state();
console.log(JSON.stringify({
  at, asked, mine, kept, saved: page.exported(),
  shown: [elements.above.src, elements.below.src],
  saves, another: !elements.another.hidden,
  save: { hidden: elements.save.hidden, text: elements.save.textContent },
  marked: elements.questions.children.map(row => row.attributes["aria-current"] === "true"),
}));
