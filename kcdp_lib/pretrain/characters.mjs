// node characters.mjs JOBS OUT: draws characters whose features their designers named.
// JOBS: a JSON list of {set, seed, count} or {set, seed, asked}; OUT: a JSON line {set, options, svg}
// for each character. `asked` is a list of options, one a character: a name, or a chance in percent.
// Features that state an expression are drawn evenly, so that a rare one is seen as often as a
// common one; everything else (hair, clothes, skin) is left to the generator and its seed.
import fs from 'node:fs';
import { createAvatar } from '@dicebear/core';

const EXPRESSIONS = ['mouth', 'eyes', 'eyebrows', 'mood', 'face', 'lips'];
const [jobs, out] = process.argv.slice(2);
const stream = fs.createWriteStream(out);

function generator(seed) {
  // mulberry32: a seed gives the same numbers on every machine
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function asList(options) {
  // a feature is one of several, a chance is a number
  return Object.fromEntries(
    Object.entries(options).map(([name, one]) => [name, typeof one === 'number' ? one : [one]])
  );
}

for (const { set, seed, count, asked } of JSON.parse(fs.readFileSync(jobs, 'utf8'))) {
  const style = await import(`@dicebear/${set}`);
  const random = generator(seed);
  const properties = style.schema.properties;
  for (let i = 0; i < (asked?.length ?? count); i++) {
    const options = asked ? asked[i] : {};
    for (const name of asked ? [] : EXPRESSIONS) {
      const choices = properties[name]?.items?.enum;
      if (choices) options[name] = choices[Math.floor(random() * choices.length)];
    }
    const svg = createAvatar(style, { seed: `${set}-${seed}-${i}`, ...asList(options) }).toString();
    stream.write(JSON.stringify({ set, options, svg }) + '\n');
  }
}
stream.end();
