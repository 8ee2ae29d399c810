// What is behind a gear closes with Escape, or at a press elsewhere.
const GEARS = "#settings, .tab-settings";

function closeGears(without, isByKey = false) {
    for (const gear of document.querySelectorAll(GEARS)) {
        const button = gear.querySelector(":scope > button");
        if (gear !== without && button?.classList.contains("open")) {
            button.click();
            isByKey && button.focus();
        }
    }
}

document.addEventListener("pointerdown", ({ target }) => closeGears(target.closest(GEARS)));
document.addEventListener("keydown", ({ key }) => key === "Escape" && closeGears(null, true));
