//! The whole system as its users meet it: three real processes (`tests/processes`), the page in a browser (`browser`), the
//! drawings that recognition is measured with (`digits`), and the golden transcripts (`golden.txt`). The crate itself is empty.
