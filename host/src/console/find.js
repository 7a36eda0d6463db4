// Words that a list is searched for.

/** Without case and accents: "Zoë" is "zoe". */
const fold = (text) => String(text).normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

/** What can be found of a call or a recording: its ids, numbers and parameters. */
export function findable(call) {
  const pairs = Object.entries(call.parameters).map(([name, value]) => [fold(name), fold(value)]);
  const words = [call.id, call.call_id, call.stream_id, call.account_id, ...Object.values(call.caller ?? {})];
  return { pairs, text: fold([...words.filter(Boolean), ...pairs.flat()].join("\n")) };
}

/** A test for all these words; `name:value` finds a parameter by both. */
export function finder(query) {
  const words = fold(query).split(/\s+/).filter(Boolean);
  return ({ pairs, text }) => words.every((word) => {
    const [name, ...rest] = word.split(":");
    const value = rest.join(":");
    return text.includes(word) || (value && pairs.some(([one, its]) => one === name && its.includes(value)));
  });
}
