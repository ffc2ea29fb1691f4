// SentencePiece's BPE, exactly: of all neighbours whose joined text is a piece, those of the best rank are merged,
// leftmost first among equals, until none are left; characters without a piece become bytes.
class Bpe {
  constructor(pieces, ranks, prefix) {
    this.pieces = pieces;
    this.prefix = prefix;
    this.id = new Map(pieces.map((piece, id) => [piece, id]));
    this.rank = new Map();  // normal pieces only: the others never come out of text
    pieces.forEach((piece, id) => { if (ranks[id] >= 0) this.rank.set(piece, ranks[id]); });
  }

  cut(text) {
    if (!text) return [];
    const parts = Array.from((this.prefix ? " " : "") + (text.toWellFormed?.() ?? text), (c) => (c === " " ? "\u2581" : c));
    const joined = (i) => (i + 1 < parts.length ? this.rank.get(parts[i] + parts[i + 1]) ?? Infinity : Infinity);
    const ranks = parts.map((_, i) => joined(i));
    for (;;) {
      let best = 0;
      for (let i = 1; i < ranks.length; i++) if (ranks[i] < ranks[best]) best = i;
      if (ranks[best] === Infinity) break;
      parts.splice(best, 2, parts[best] + parts[best + 1]);
      ranks.splice(best, 1);
      ranks[best] = joined(best);
      if (best > 0) ranks[best - 1] = joined(best - 1);
    }
    return parts.flatMap((part) => (this.rank.has(part) ? [[this.id.get(part), part.replaceAll("\u2581", " ")]] : this.bytes(part)));
  }

  bytes(character) {
    return Array.from(new TextEncoder().encode(character), (byte) => {
      const hex = byte.toString(16).padStart(2, "0").toUpperCase();
      return [this.id.get(`<0x${hex}>`), byte < 128 ? String.fromCharCode(byte) : [hex]];
    });
  }
}

// Models come as the pieces that they add to another, and ranks as runs of equal steps: [[step, times], ...].
function openModels(models) {
  const pieces = (place) => {
    const model = models[place];
    return model.on === null ? model.pieces : [...pieces(model.on), ...model.pieces];
  };
  return models.map((model, place) => {
    if (!model) return null;
    const ranks = [];
    let rank = 0;
    for (const [step, times] of model.ranks) for (let i = 0; i < times; i++) ranks.push((rank += step));
    return new Bpe(pieces(place), ranks, model.prefix);
  });
}
