// The live figure of the page "Try it here": one picture in, and all that KCDP makes of it,
// computed in this page.
//
// Made by `python -m kcdp_book.live`, beside this file: model.bin (three ONNX graphs and their
// weights) and live.json (words, rules, classes). The graphs are run by onnxruntime-web (ort/), on
// one thread, so that any web server will do. What is no tensor is done here: the tokenizer, the
// triplets' parser and Pillow's resampling, by the tables of live.json and number for number as in
// Python (tests/test_live.py).

const HERE = import.meta.url;
const ALPHA = 0.65; // of the map over the picture, as in the book's figures
const LARGEST = 40e6; // pixels of a picture: more would freeze a phone
const MAGMA = [
  [0, 0, 4],
  [29, 17, 71],
  [81, 18, 124],
  [131, 38, 129],
  [183, 55, 121],
  [230, 81, 100],
  [252, 137, 97],
  [254, 196, 136],
  [252, 253, 191],
];

// ------------------------------------------------------------------------------------------- words

/**
 * Everything that cuts texts into tokens and captions into triplets, from live.json: {tokenize,
 * pieces, decode, parse}.
 */
export function language({ words, rules }) {
  const number = new Map(words.vocabulary.map((piece, i) => [piece, i]));
  const rank = new Map(words.merges.map((pair, i) => [pair.join(" "), i]));
  const split = new RegExp(words.split, "gu");
  const sets = Object.fromEntries(
    Object.entries(rules)
      .filter(([, list]) => Array.isArray(list))
      .map(([name, list]) => [name, new Set(list)]),
  );
  const [lead, clauses] = [new RegExp(rules.lead), new RegExp(rules.clauses)];

  /**
   * Byte-pair encoding of one word: its neighbours are joined, the earliest merge first. Captions
   * are plain ASCII, so a byte is a letter.
   */
  function pieces(word) {
    let parts = [...word];
    parts[parts.length - 1] += "</w>";
    for (;;) {
      const ranks = parts.slice(1).map((part, i) => rank.get(`${parts[i]} ${part}`) ?? Infinity),
        best = Math.min(...ranks);
      if (!ranks.length || best === Infinity) return parts;
      const joined = [];
      for (let i = 0; i < parts.length; i++)
        joined.push(ranks[i] === best ? parts[i] + parts[++i] : parts[i]);
      parts = joined;
    }
  }

  /** The numbers of a text's pieces, without the marks around it. */
  const numbers = (text) =>
    (text.toLowerCase().match(split) ?? [])
      .flatMap(pieces)
      .map((piece) => number.get(piece) ?? words.end);

  /**
   * A text as the text encoder reads it: {ids, real}, both of the encoder's length; real counts the
   * tokens that are no padding.
   */
  function tokenize(text) {
    const ids = [words.start, ...numbers(text).slice(0, words.length - 2), words.end],
      real = ids.length;
    return { ids: [...ids, ...Array(words.length - real).fill(words.pad)], real };
  }

  /** The caption that the VLM's token numbers spell. */
  const decode = (ids) =>
    ids
      .map((i) => words.caption.vocabulary[i])
      .join("")
      .replaceAll("</w>", " ")
      .split(/\s+/)
      .filter(Boolean)
      .join(" ");

  // The parser repeats kcdp_lib/triplets.py step by step, with its word lists.
  const strip = (chunk) => chunk.filter((word) => !sets.determiners.has(word)).join(" ");
  const participle = (relation) => /(ing|ed)$/.test(relation.split(" ")[0]);

  function isVerb(word, following, mayBe, mayBeFinite) {
    if (!mayBe) return false;
    if (word.endsWith("ing") && word.length > 4) return !sets.nouns_in_ing.has(word);
    return (
      (sets.finite.has(word) && mayBeFinite) ||
      (word.endsWith("ed") && sets.after_ed.has(following))
    );
  }

  /** Words and commas of a clause; a preposition of several words is one word. */
  function wordsOf(clause) {
    for (const phrase of rules.phrases)
      clause = clause.replace(new RegExp(`\\b${phrase}\\b`, "g"), phrase.replaceAll(" ", "_"));
    return (clause.match(/[\w'-]+|,/g) ?? []).map((word) => word.replaceAll("_", " "));
  }

  function parseClause(list, subject) {
    const found = [];
    let relation = "",
      verb = false,
      chunk = [],
      own = "",
      afterJoint = true;
    function close() {
      const phrase = strip(chunk),
        now = own || subject;
      if (!relation) own = own && phrase ? `${own} and ${phrase}` : phrase || own;
      else if (phrase && now) {
        found.push([now, relation, phrase]);
        verb = false;
      } else if (verb && now && !sets.be.has(relation)) {
        found.push([now, participle(relation) ? "is" : "does", relation]);
        verb = false;
      }
      chunk = [];
    }
    list.forEach((word, i) => {
      const noun = Boolean(strip(chunk)),
        justBe = sets.be.has(relation) && !chunk.length;
      if (word === "," || word === "and" || (sets.relative.has(word) && noun)) {
        close();
        if (word === "," && relation && !(own || subject)) relation = "";
        afterJoint = true;
        return;
      }
      if (sets.be.has(word) && (noun || afterJoint)) {
        close();
        [relation, verb] = [word, true];
      } else if (
        isVerb(word, list[i + 1] ?? "", noun || afterJoint || justBe, !relation || afterJoint)
      ) {
        if (!justBe) close();
        [relation, verb] = [word, true];
      } else if (
        verb &&
        !chunk.length &&
        !sets.be.has(relation) &&
        (sets.prepositions.has(word) || sets.particles.has(word))
      )
        relation = `${relation} ${word}`;
      else if (sets.prepositions.has(word)) {
        close();
        [relation, verb] = [word === "with" ? "has" : word, false];
      } else chunk.push(word);
      afterJoint = false;
    });
    close();
    return [found, own || subject];
  }

  /** [subject, relation, object] of a caption, each once, in order. */
  function parse(caption) {
    const found = new Map();
    let subject = "",
      triplets;
    for (const clause of caption.toLowerCase().trim().split(/\s+/).join(" ").split(clauses)) {
      [triplets, subject] = parseClause(wordsOf(clause.trim().replace(lead, "")), subject);
      for (const triplet of triplets) found.set(triplet.join("\0"), triplet);
    }
    return [...found.values()];
  }
  return { tokenize, numbers, decode, parse };
}

// ------------------------------------------------------------------------------------------ pixels

/**
 * Pillow's bicubic weights for one axis: for each new pixel, where it begins to read and integer
 * weights of 22 bits.
 */
function weights(length, from, to, size) {
  const scale = (to - from) / size,
    wide = Math.max(scale, 1),
    reach = 2 * wide;
  const cubic = (x) => {
    x = Math.abs(x);
    return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
  };
  return Array.from({ length: size }, (_, i) => {
    const centre = from + (i + 0.5) * scale,
      first = Math.max(0, Math.trunc(centre - reach + 0.5)),
      last = Math.min(length, Math.trunc(centre + reach + 0.5));
    const raw = Array.from({ length: last - first }, (_, k) =>
        cubic((first + k - centre + 0.5) / wide),
      ),
      sum = raw.reduce((a, b) => a + b, 0);
    return {
      first,
      shares: raw.map((w) => {
        const share = (w / sum) * 2 ** 22;
        return Math.trunc(share + (share < 0 ? -0.5 : 0.5));
      }),
    };
  });
}

/**
 * One pass over planes [3, rows, columns] of bytes, along the rows (down) or the columns. Pillow
 * keeps bytes between its passes, and so do we.
 */
function pass({ bytes, rows, columns }, taps, down) {
  const [tall, wide] = down ? [taps.length, columns] : [rows, taps.length],
    step = down ? columns : 1,
    out = new Uint8Array(3 * tall * wide);
  for (let c = 0, at = 0; c < 3; c++)
    for (let y = 0; y < tall; y++)
      for (let x = 0; x < wide; x++) {
        const { first, shares } = taps[down ? y : x];
        let from = c * rows * columns + (down ? first * columns + x : y * columns + first),
          sum = 2 ** 21;
        for (let k = 0; k < shares.length; k++, from += step) sum += shares[k] * bytes[from];
        out[at++] = Math.min(255, Math.max(0, Math.floor(sum / 2 ** 22)));
      }
  return { bytes: out, rows: tall, columns: wide };
}

/**
 * The middle square of RGBA pixels, scaled as `ImageOps.fit(..., BICUBIC)` of Pillow 13 does, to
 * the byte: -> RGB planes [3, size, size], 0 to 255.
 */
export function fit({ data, width, height }, size) {
  const side = Math.min(width, height),
    left = (width - side) / 2,
    top = (height - side) / 2;
  let planes = { bytes: new Uint8Array(3 * width * height), rows: height, columns: width };
  for (let c = 0, at = 0; c < 3; c++)
    for (let i = 0; i < width * height; i++) planes.bytes[at++] = data[4 * i + c];
  const across = (now) =>
    width === size && side === size
      ? now
      : pass(now, weights(width, left, left + side, size), false);
  const down = (now) =>
    height === size && side === size
      ? now
      : pass(now, weights(height, top, top + side, size), true);
  // Pillow 13 shortens such pictures first; the order matters, because bytes are rounded in between
  const tall = height - size > 2 * Math.max(width - size, 0);
  return Float32Array.from((tall ? across(down(planes)) : down(across(planes))).bytes);
}

/**
 * A picture's file as RGBA pixels on white, turned as its EXIF says, colours as they are stored.
 */
async function read(blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    throw new Problem("This file cannot be read as a picture; choose a PNG, JPEG or WebP.");
  }
  const { width, height } = bitmap;
  if (width * height > LARGEST)
    throw new Problem(
      `This picture has ${Math.round((width * height) / 1e6)} million pixels; choose one of at ` +
        `most ${LARGEST / 1e6} million.`,
    );
  const context = Object.assign(document.createElement("canvas"), { width, height }).getContext(
    "2d",
    { willReadFrequently: true },
  );
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

// --------------------------------------------------------------------------------------- the model

/** What the reader is told, in one sentence. */
class Problem extends Error {}

async function download(name, told) {
  const answer = await fetch(new URL(name, HERE));
  if (!answer.ok)
    throw new Problem(`${name} is not beside the page (${answer.status}); build the book again.`);
  const reader = answer.body.getReader(),
    parts = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    told?.(value.length);
  }
  return new Blob(parts);
}

const unzip = async (blob) =>
  new Uint8Array(
    await new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer(),
  );

/** Weights from their packed bytes (kcdp_book/live.py, `packed`), as the bytes of float32. */
export function unpack(bytes, tensors) {
  const total = tensors.reduce((sum, [, count]) => sum + count, 0),
    floats = new Float32Array(total),
    bits = new Uint32Array(floats.buffer);
  let at = 0,
    byte = 0;
  for (const [kind, count, step] of tensors) {
    const depth = kind === "float24" ? 3 : 2;
    for (let i = 0; i < count; i++) {
      let word = 0;
      for (let plane = 0; plane < depth; plane++)
        word = (word << 8) | bytes[byte + plane * count + i];
      if (kind === "grid") floats[at + i] = ((word << 16) >> 16) * step;
      else if (kind === "float24") bits[at + i] = word << 8;
      else {
        // float16: its exponent counts from elsewhere
        bits[at + i] = ((word & 0x8000) << 16) | ((word & 0x7fff) << 13);
        floats[at + i] *= 2 ** 112;
      }
    }
    [at, byte] = [at + count, byte + depth * count];
  }
  return new Uint8Array(floats.buffer);
}

/**
 * The model, ready: a function from RGBA pixels to all that the figure shows. told(bytes) counts
 * what has arrived.
 */
export async function load(about, told) {
  if (typeof WebAssembly !== "object" || typeof DecompressionStream !== "function")
    throw new Problem(
      "This browser cannot run the model (it lacks WebAssembly or DecompressionStream); try a " +
        "newer one.",
    );
  const [wasm, body] = await Promise.all(
    ["ort/ort-wasm-simd-threaded.wasm.gz.bin", "model.bin"].map((name) =>
      download(name, told).then(unzip),
    ),
  );
  const ort = await import(new URL("ort/ort.wasm.min.mjs", HERE));
  Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: wasm.buffer });
  const sessions = {};
  let at = Object.values(about.graphs).reduce((sum, size) => sum + size, 0);
  const data = unpack(body.subarray(at), about.tensors);
  at = 0;
  for (const [name, size] of Object.entries(about.graphs)) {
    sessions[name] = await ort.InferenceSession.create(body.subarray(at, at + size), {
      externalData: [{ path: "weights", data }],
      logSeverityLevel: 3,
    });
    at += size;
  }
  const speech = language(about);
  return (image) => answer(image, about, speech, ort, (name, inputs) => sessions[name].run(inputs));
}

/** A caption behind the three feelings at these places of their list: `knowledge.with_feelings`. */
function withFeelings(caption, [first, second, third], feelings) {
  if (!feelings.length) return caption;
  return `feeling ${feelings[first]} , ${feelings[second]} and ${feelings[third]} , ${caption}`;
}

/** What Python's `describe` and `KCDP.answer` do for one picture. */
async function answer(image, about, { tokenize, numbers, decode, parse }, ort, run) {
  const { words, side, triplets: room } = about;
  const started = performance.now(),
    pixels = new ort.Tensor("float32", fit(image, side), [1, 3, side, side]);
  const { image_tokens, distance, felt } = await run("look", { pixels }),
    known = about.familiar.distances;
  // `familiar.Known.familiarity`
  const familiarity = known.filter((far) => far >= distance.data[0]).length / known.length;
  const said = [words.caption.start],
    spoken = new Int32Array(words.length - 1);
  while (said.length < words.length) {
    // greedy: the likeliest token, then all over again with it
    spoken.fill(words.caption.pad).set(said);
    const { next } = await run("say", {
        ids: new ort.Tensor("int32", spoken, [1, spoken.length]),
        image_tokens,
      }),
      token = next.data[said.length - 1];
    if (token === words.caption.end) break;
    said.push(token);
  }
  const written = decode(said.slice(1)),
    caption = withFeelings(written, felt.data, about.feelings),
    triplets = parse(written).slice(0, room),
    texts = [caption, ...triplets.map((triplet) => triplet.join(" "))].map(tokenize);
  const ids = new Int32Array((1 + room) * words.length),
    mask = new Float32Array(ids.length);
  texts.forEach((text, row) => {
    ids.set(text.ids, row * words.length);
    mask.fill(1, row * words.length, row * words.length + text.real);
  });
  const shape = [1 + room, words.length];
  const seen = await run("perceive", {
    pixels,
    ids: new ort.Tensor("int32", ids, shape),
    mask: new ort.Tensor("float32", mask, shape),
  });
  let place = 1; // after the start mark
  const places = caption.split(" ").map((word) => {
    const first = place;
    place += numbers(word).length;
    return { word, first, last: Math.min(place, words.length - 1) };
  });
  return {
    caption,
    writtenWords: written.split(" ").length, // of the caption, without its feelings: its last ones
    triplets,
    places,
    familiarity,
    seconds: (performance.now() - started) / 1000,
    probabilities: [...seen.probabilities.data],
    similarities: [...seen.similarities.data],
    attention: { data: [...seen.attention.data], grid: seen.attention.dims.slice(1) },
  };
}

/**
 * Where the picture attends to a word, [size, size] between 0 and 1: `perception.word_attention`.
 */
export function heat({ data, grid: [h, w] }, { first, last }, size) {
  const sum = Array.from({ length: h * w }, (_, i) => {
    let s = 0;
    for (let t = first; t < last; t++) s += data[t * h * w + i];
    return s;
  });
  const low = Math.min(...sum),
    range = Math.max(Math.max(...sum) - low, 1e-12);
  const axis = (n) =>
    Array.from({ length: size }, (_, i) => {
      const x = Math.max(0, ((i + 0.5) * n) / size - 0.5),
        a = Math.floor(x);
      return [a, Math.min(a + 1, n - 1), x - a];
    });
  const at = (y, x) => (sum[y * w + x] - low) / range,
    columns = axis(w);
  return axis(h).flatMap(([y0, y1, fy]) =>
    columns.map(
      ([x0, x1, fx]) =>
        (at(y0, x0) * (1 - fx) + at(y0, x1) * fx) * (1 - fy) +
        (at(y1, x0) * (1 - fx) + at(y1, x1) * fx) * fy,
    ),
  );
}

// ----------------------------------------------------------------------------------- what is shown

/** An element with properties and children; a name with a dash is an attribute. */
function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties))
    name.includes("-") || name === "role"
      ? element.setAttribute(name, value)
      : (element[name] = value);
  element.append(...children);
  return element;
}

const percent = (x) => `${Math.round(100 * x)}%`;
const best = (list) => list.indexOf(Math.max(...list));

/** A colour of the map, 0 to 1 -> [red, green, blue]. */
function magma(x) {
  const i = Math.min(Math.floor(x * (MAGMA.length - 1)), MAGMA.length - 2),
    part = x * (MAGMA.length - 1) - i;
  return MAGMA[i].map((low, c) => low + part * (MAGMA[i + 1][c] - low));
}

/**
 * A table of bars, each from zero: a row is [name, value, text]; the greatest is marked, in words
 * too. from and to are the ends of the axis.
 */
function bars(title, rows, from, to, mark) {
  const winner = best(rows.map((row) => row[1])),
    at = (x) => (100 * (x - from)) / (to - from);
  return h(
    "table",
    { className: "live-bars" },
    h("caption", {}, title),
    h(
      "tbody",
      {},
      ...rows.map(([name, value, text], i) => {
        const bar = h("span", { className: "live-bar" });
        bar.style.left = `${at(Math.min(value, 0))}%`;
        bar.style.width = `${at(Math.abs(value) + from)}%`;
        return h(
          "tr",
          { className: i === winner ? "live-best" : "" },
          h("th", { scope: "row" }, name),
          h(
            "td",
            { className: "live-track", "aria-hidden": "true" },
            bar,
            ...(from < 0 ? [h("span", { className: "live-zero" })] : []),
          ),
          h("td", { className: "live-number" }, text),
          h("td", { className: "live-mark" }, i === winner ? mark : ""),
        );
      }),
    ),
  );
}

/** Draw the picture on its canvas, and over it a map, 0 to 1, where there is one. */
function paint(canvas, pixels, size, map) {
  const area = size * size,
    image = new ImageData(size, size);
  for (let i = 0; i < area; i++) {
    const colour = [pixels[i], pixels[area + i], pixels[2 * area + i]],
      grey = (colour[0] + colour[1] + colour[2]) / 3;
    const over = map && magma(map[i]);
    image.data.set(
      [...colour.map((value, c) => (over ? (1 - ALPHA) * grey + ALPHA * over[c] : value)), 255],
      4 * i,
    );
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** The picture as the model sees it, before anything is known of it. */
function plain(pixels, size) {
  const canvas = h("canvas", { width: size, height: size, role: "img" });
  paint(canvas, pixels, size, null);
  canvas.setAttribute("aria-label", "The picture, as the model sees it.");
  return h("figure", { className: "live-picture" }, canvas);
}

/** Where on the picture a map is strongest, in words. */
function strongest(map, size) {
  const at = best(map),
    row = ["top", "middle", "bottom"][Math.floor((3 * Math.floor(at / size)) / size)],
    column = ["left", "centre", "right"][Math.floor((3 * (at % size)) / size)];
  return `${row} ${column}`;
}

/**
 * The picture as the model sees it, on which the attention to a word of its caption can be laid,
 * and the choice of the word: [figure, choice]. At first a map is shown, or the picture alone.
 */
function picture(pixels, found, size, mapped) {
  const canvas = h("canvas", { width: size, height: size, role: "img" });
  const draw = (chosen) => {
    const map = chosen && heat(found.attention, chosen, size);
    paint(canvas, pixels, size, map);
    canvas.setAttribute(
      "aria-label",
      chosen
        ? `The picture, with a map of the attention to “${chosen.word}”: strongest at the ` +
            `${strongest(map, size)}.`
        : `The picture, ${size} by ${size} pixels.`,
    );
  };
  // As in the book's figures, the first word to look at is the one that ends the last triplet, else
  // the longest that the VLM wrote: `record.content_word`.
  const written = found.places.slice(-found.writtenWords),
    spoken = found.triplets
      .map((triplet) => triplet[2].split(" ").at(-1))
      .filter((word) => found.places.some((place) => place.word === word))
      .at(-1);
  const first = spoken
    ? found.places.findIndex((place) => place.word === spoken)
    : found.places.indexOf(written[best(written.map((place) => place.word.length))]);
  const choice = (label, place, checked) =>
    h(
      "label",
      {},
      h("input", { type: "radio", name: "live-word", checked, onchange: () => draw(place) }),
      h("span", {}, label),
    );
  draw(mapped ? found.places[first] : null);
  const key = h(
    "figcaption",
    { className: "live-key" },
    "least ",
    h("span", { "aria-hidden": "true" }),
    " most attended",
  );
  return [
    h("figure", { className: "live-picture" }, canvas, key),
    h(
      "fieldset",
      { className: "live-words" },
      h("legend", {}, "Attention to a word of the caption"),
      ...found.places.map((place, i) => choice(place.word, place, mapped && i === first)),
      choice("no map", null, !mapped),
    ),
  ];
}

/** Is the picture like anything that the vision-language model was trained on? In a sentence. */
function familiar(familiarity, least) {
  if (familiarity < least)
    return h(
      "p",
      { className: "live-strange" },
      h("strong", {}, "Unlike anything that the model knows. "),
      "What it says of this picture is not to be trusted.",
    );
  return h(
    "p",
    { className: "live-familiar" },
    `Familiar: ${percent(familiarity)} of known pictures lie at least this far from what the ` +
      "model was trained on.",
  );
}

/**
 * All results of one picture; truth is what an example was drawn as, undefined for a reader's own.
 */
function results(pixels, found, about, truth) {
  const [answer, fits] = [
    about.classes[best(found.probabilities)],
    about.classes[best(found.similarities)],
  ];
  const triplets = found.triplets.length
    ? found.triplets.map((triplet) => h("li", {}, `(${triplet.join(", ")})`))
    : [h("li", {}, "none: the parser found no relation")];
  const [map, choice] = picture(pixels, found, about.side, truth !== undefined);
  const asked = about.classes.map((name, i) => [
    h("span", {}, h("span", { className: "live-if" }, "and if it were "), `${name}?`),
    found.similarities[i],
    found.similarities[i].toFixed(2).replace("-", "−"),
  ]);
  const predicted = about.classes.map((name, i) => [
    name,
    found.probabilities[i],
    percent(found.probabilities[i]),
  ]);
  return [
    map,
    h(
      "div",
      { className: "live-said" },
      h("h3", {}, "Caption"),
      h("p", { className: "live-caption" }, found.caption),
      familiar(found.familiarity, about.familiar.least),
      h("h3", {}, "Triplets"),
      h("ul", { className: "live-triplets" }, ...triplets),
      choice,
    ),
    h(
      "div",
      { className: "live-answers" },
      bars(
        "The counterfactual question: and if it were another emotion, would the picture still " +
          "fit what is said about it? (cosine from −1 to 1, the line is zero)",
        asked,
        -1,
        1,
        "fits best",
      ),
      bars("Prediction of the experts (probability)", predicted, 0, 1, "answer"),
      h(
        "p",
        { className: "live-verdict" },
        h("strong", {}, answer),
        ` (${percent(Math.max(...found.probabilities))}). `,
        fits === answer
          ? "The counterfactual question says the same. "
          : `The counterfactual question says ${fits}: the two do not always agree. `,
        truth ? `It was drawn as ${truth}. ` : "",
        `Computed in ${found.seconds.toFixed(1)} seconds, in this page.`,
      ),
    ),
  ];
}

/**
 * Build the figure into its place on the page; nothing heavy is fetched before the reader asks for
 * it.
 */
async function start(root) {
  const about = await (await fetch(new URL("live.json", HERE))).json(),
    total = about.bytes.reduce((a, b) => a + b),
    megabytes = Math.round(total / 1e6);
  const status = h("p", { className: "live-status", role: "status", "aria-live": "polite" }),
    bar = h("progress", { max: total, value: 0, hidden: true, "aria-label": "Loading the model" });
  const place = h("div", { className: "live-result" }),
    button = h(
      "button",
      { type: "button", className: "live-load" },
      `Load the model (${megabytes} MB)`,
    );
  const file = h("input", {
    type: "file",
    accept: "image/*",
    className: "live-file",
    id: "live-file",
  });
  // silent: read out, but not shown, because it stands below
  const say = (text, silent = false) => {
    status.textContent = text;
    status.classList.toggle("live-silent", silent);
  };
  let model,
    turn = 0;

  const ready = () =>
    (model ??= (async () => {
      let arrived = 0;
      [button.disabled, bar.hidden] = [true, false];
      say(`Loading the model, ${megabytes} MB, once …`);
      const loaded = await load(about, (count) => {
        bar.value = arrived += count;
      });
      [button.hidden, bar.hidden] = [true, true];
      say("The model is loaded; choose a picture.");
      return loaded;
    })().catch((error) => {
      // the next try starts afresh
      [model, button.disabled, bar.hidden] = [undefined, false, true];
      throw error;
    }));

  /** Whatever fails ends as one sentence. */
  const attempt = async (action) => {
    try {
      await action();
    } catch (error) {
      say(
        error instanceof Problem
          ? error.message
          : `The model could not be run here (${error.message}); load the page again, or try ` +
              "another browser.",
      );
    }
  };

  const own = (list) => {
    if (list[0]) {
      press(null);
      show(() => list[0]);
    }
  };
  const show = (getBlob, truth) =>
    attempt(async () => {
      const mine = ++turn,
        image = await read(await getBlob()),
        see = await ready();
      if (mine !== turn) return; // the reader has chosen another one meanwhile
      const before = [...place.childNodes];
      place.replaceChildren(plain(fit(image, about.side), about.side));
      say("Looking …");
      await new Promise((done) => setTimeout(done, 30)); // let the page say so first
      const found = await see(image).catch((error) => {
        if (mine === turn) place.replaceChildren(...before);
        throw error;
      });
      if (mine !== turn) return;
      place.replaceChildren(...results(fit(image, about.side), found, about, truth));
      place.found = found;
      say(
        `Caption: ${found.caption} Prediction: ${about.classes[best(found.probabilities)]}, ` +
          `${percent(Math.max(...found.probabilities))}.`,
        true,
      );
    });

  const press = (chosen) =>
    examples.forEach((button) => button.setAttribute("aria-pressed", button === chosen));
  const examples = about.examples.map(({ file: name, alt, truth }) =>
    h(
      "button",
      {
        type: "button",
        className: "live-example",
        "aria-pressed": "false",
        onclick: (event) => {
          press(event.currentTarget);
          show(() => download(name), truth);
        },
      },
      h("img", { src: new URL(name, HERE), alt, width: 72, height: 72 }),
    ),
  );
  button.onclick = () => attempt(ready);
  file.onchange = () => own(file.files);
  const drop = h(
    "div",
    { className: "live-drop" },
    h("label", { htmlFor: "live-file" }, "Or your own picture: choose a file, or drop it here"),
    file,
  );
  drop.ondragover = (event) => {
    event.preventDefault();
    drop.classList.add("live-over");
  };
  drop.ondragleave = () => drop.classList.remove("live-over");
  drop.ondrop = (event) => {
    event.preventDefault();
    drop.classList.remove("live-over");
    own(event.dataTransfer.files);
  };
  root.replaceChildren(
    h(
      "div",
      { className: "live-examples", role: "group", "aria-label": "Example pictures" },
      ...examples,
    ),
    drop,
    button,
    bar,
    status,
    place,
  );
  root.classList.add("live-ready");
}

if (globalThis.document)
  for (const root of document.querySelectorAll("[data-kcdp-live]")) start(root);
