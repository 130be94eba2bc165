"""Makes a captioner: data, vocabulary, encoder, decoder, training, decoding."""
