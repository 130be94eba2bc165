"""What the words of a report mean."""

from collections.abc import Mapping

GLOSSARY: Mapping[str, str] = {
    "technique": "what was done in Keras: prune80 = 80 % zeros; cluster16 = 16 values; halves as encoder/decoder",
    "collapsed": "less than half of the uncompressed captioner's different captions, or no better than a constant one",
    "artifact": "the files that are shipped: encoder, decoder, vocabulary, preprocessing contract",
    "recipe": "how an artifact was made: captioner, compression and precision of both halves, format",
    "runtime": "what runs the artifact (TensorFlow, LiteRT, ONNX Runtime), each in its own process",
    "encoder, decoder": "the half that reads the image, and the half that writes one word a step",
    "greedy, beam 3": "take the likeliest word at each step, or keep the three likeliest sentences",
    "BLEU-n": "share of word groups of up to n words that people also wrote, 0 to 1",
    "CIDEr": "agreement with people's captions, weighted towards telling words (CIDEr-D, 0 to 10)",
    "constant caption": "the best single sentence given to every image: what looking at nothing scores",
    "baseline": "the captioner as Keras left it, on TensorFlow; every gain and loss is against it",
    "quality gate": "what may be shipped: at least 99 % of the baseline's CIDEr, and more than the constant caption's",
    "frontier": "rows that no other row beats in size, CIDEr and time at once: choose among these",
    "identical": "the same words in the same order as the reference row, image by image",
    "same file, same tensor": "captions equal when each runtime prepares the image, or when all get the same pixels",
    "margin": "by how much the reference preferred its word to the other, in nats: 0.05 is 5 % in probability",
    "tie flip": "another word where the margin is within the arithmetic's own noise; the other causes are named beside",
    "noise floor": "how far apart the same artifact measured twice came out, relative",
    "rank 2=": "tied: rows of one rank can't be told apart by their times",
    "[a, b]": "an interval that holds the true value in 95 of 100 runs (99 where two rows' times are compared)",
    "p90": "nine captions of ten are faster; shown only of enough samples: 64, for p95 130, for p99 662",
    "steps each": "every image is made to take that many words, whatever the captioner would have said",
    "offline": "all files at hand at once, one batch from files to captions",
    "valid": "at least 64 samples and 10 s, steady, and the same outputs as in the quality run",
    "quick": "measured, but with too few samples to compare speeds",
    "invalid": "measured, but the timing failed its own checks",
}


def render_glossary() -> str:
    """A list, a line a word."""
    return "\n".join(f"- **{word}**: {meaning}" for word, meaning in GLOSSARY.items())
