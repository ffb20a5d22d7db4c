// The actions that the page is allowed to take.

import { h } from "./dom.js";

const dialog = document.getElementById("confirm");
const text = document.getElementById("confirm-text");
const yes = document.getElementById("confirm-yes");
let decide = () => {};

yes.addEventListener("click", () => dialog.close("yes"));
document.getElementById("confirm-no").addEventListener("click", () => dialog.close("no"));
dialog.addEventListener("close", () => decide(dialog.returnValue === "yes"));

function ask(question, answer) {
  text.textContent = question;
  yes.textContent = answer;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    decide = resolve;
  });
}

export function toast(message, bad = false) {
  const toasts = document.getElementById("toasts");
  const element = h("p", { class: bad ? "bad" : null }, message);
  toasts.append(element);
  setTimeout(() => element.remove(), bad ? 9000 : 5000);
}

// A button that asks for confirmation, and then has a command carried out.
export function button(label, { question, answer, action, done, danger = true }) {
  const element = h(
    "button",
    {
      type: "button",
      class: danger ? "small danger" : "small",
      onclick: async () => {
        if (question && !(await ask(question, answer ?? label))) return;
        element.disabled = true;
        try {
          toast(done(await act(action)));
        } catch (error) {
          toast(error.message, true);
        } finally {
          element.disabled = false;
        }
      },
    },
    label,
  );
  return element;
}

async function act(action) {
  const response = await fetch("/api/action", {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Amphora": "1" },
    body: JSON.stringify(action),
  }).catch((error) => {
    throw new Error(`The dashboard's server cannot be reached: ${error.message}`);
  });
  if (!response.ok) throw new Error((await response.text()).trim());
  const answer = await response.json();
  if (answer.error) throw new Error(answer.error);
  return answer.result;
}
