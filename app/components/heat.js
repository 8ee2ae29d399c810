// Draws maps over a picture. A map is {shape: [frames, rows, columns], data: base64 of bytes, x: [first, step], y: [first,
// step]}: the centres of its cells in fractions of the picture. Colours are those of the saved overlay.
const STOPS = [
    [127, 30, 108], [160, 42, 99], [192, 58, 81], [219, 80, 59], [239, 108, 35], [250, 144, 8], [251, 184, 29], [244, 225, 86],
    [252, 255, 164],
];
const STRONGEST_TINT = 0.85;
const UNSEEN_SHADE = "rgba(0, 0, 0, 0.5)";
const cellCanvas = document.createElement("canvas");

function bytesOf(base64) {
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

function colourAt(strength) {
    const place = strength * (STOPS.length - 1);
    const lower = Math.min(Math.floor(place), STOPS.length - 2);
    return STOPS[lower].map((value, i) => value + (place - lower) * (STOPS[lower + 1][i] - value));
}

const COLOURS = Array.from({ length: 256 }, (_, value) => colourAt(value / 255));

function paintCells(map, frame) {
    const [, rows, columns] = map.shape;
    map.bytes ??= bytesOf(map.data);
    cellCanvas.width = columns;
    cellCanvas.height = rows;
    const pen = cellCanvas.getContext("2d");
    const image = pen.createImageData(columns, rows);
    const first = frame * rows * columns;
    for (let cell = 0; cell < rows * columns; cell++) {
        const value = map.bytes[first + cell];
        image.data.set(COLOURS[value], 4 * cell);
        image.data[4 * cell + 3] = value * STRONGEST_TINT;
    }
    pen.putImageData(image, 0, 0);
}

function drawHeat(canvas, map, frame, seen, strength) {
    const scale = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
    if (canvas.width !== width || canvas.height !== height) {
        canvas.width = width;
        canvas.height = height;
    }
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, width, height);
    if (!map || !width) {
        return;
    }
    const [left, top, right, bottom] = [seen[0] * width, seen[1] * height, seen[2] * width, seen[3] * height];
    pen.fillStyle = UNSEEN_SHADE;
    pen.beginPath();
    pen.rect(0, 0, width, height);
    pen.rect(left, top, right - left, bottom - top);
    pen.fill("evenodd");
    paintCells(map, Math.min(frame, map.shape[0] - 1));
    pen.save();
    pen.beginPath();
    pen.rect(left, top, right - left, bottom - top);
    pen.clip();
    pen.globalAlpha = strength;
    pen.imageSmoothingEnabled = true;
    pen.imageSmoothingQuality = "high";
    const [x, stepX] = map.x;
    const [y, stepY] = map.y;
    const [, rows, columns] = map.shape;
    pen.drawImage(
        cellCanvas,
        (x - stepX / 2) * width,
        (y - stepY / 2) * height,
        columns * stepX * width,
        rows * stepY * height,
    );
    pen.restore();
}
