// The headline of a tab. props.value says its state, headline, line, share of the work and details; what happens in the browser
// alone, such as sending a clip, comes as an event "say" of the tab.
const find = (selector) => element.querySelector(selector);
const [head, doing, progress, stop, again, details] = [".headline", ".doing", ".progress", ".stop-run", ".run-again", ".details"].map(find);
const flow = element.closest(".tool-flow");

function show(value) {
    const now = value || { state: "empty" };
    flow.setAttribute("data-state", now.state);
    head.textContent = now.headline ?? "";
    doing.textContent = now.doing ?? "";
    const isWorking = now.state === "working";
    const isKnown = typeof now.share === "number";
    progress.hidden = !isWorking;
    progress.classList.toggle("unknown", !isKnown);
    progress.firstElementChild.style.width = isKnown ? `${Math.max(2, 100 * now.share)}%` : "";
    progress.setAttribute("aria-label", [now.headline, now.doing].filter(Boolean).join(". "));
    isKnown ? progress.setAttribute("aria-valuenow", Math.round(100 * now.share)) : progress.removeAttribute("aria-valuenow");
    stop.hidden = !isWorking || !now.can_stop;
    again.hidden = !now.can_repeat;
    details.hidden = !now.details?.length;
    details.querySelector("ul").replaceChildren(
        ...(now.details ?? []).map((line) => Object.assign(document.createElement("li"), { textContent: line })),
    );
}

stop.addEventListener("click", () => {
    stop.hidden = true;
    trigger("stop", {});
});
again.addEventListener("click", () => {
    again.hidden = true;
    trigger("again", {});
});
flow.addEventListener("say", ({ detail }) => show(detail));
watch("value", () => show(props.value));
show(props.value);
