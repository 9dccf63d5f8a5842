//! Whether bits look random: the four tests of FIPS 140-2, section 4.9.1 (with change
//! notice 1), on blocks of 20,000 bits. Random blocks fail one in a thousand times or so,
//! most often by a little: limits here are a little wider, so that none does in practice.

use anyhow::ensure;

/// The bytes of a block.
pub(crate) const BLOCK: usize = 2500;

/// How much wider: a limit is that much further from the middle.
const WIDER: f64 = 1.3;

/// The runs of each length from 1 to 6 and more: fewest and most.
const RUNS: [(u32, u32); 6] =
    [(2315, 2685), (1114, 1386), (527, 723), (240, 384), (103, 209), (103, 209)];

/// Fails unless `block`, of [`BLOCK`] bytes, looks random.
///
/// # Errors
/// It does not: the error says in what.
pub(crate) fn check(block: &[u8]) -> anyhow::Result<()> {
    let ones: u32 = block.iter().map(|byte| byte.count_ones()).sum();
    ensure!(within(f64::from(ones), 9725.0, 10275.0), "{ones} of 20000 bits are ones");
    let poker = poker(block);
    ensure!(within(poker, 2.16, 46.17), "the poker test gives {poker}");
    let (runs, longest) = runs(block);
    ensure!(longest < 32, "{longest} bits in a row are alike");
    for (kind, counts) in runs.iter().enumerate() {
        for (length, (count, (low, high))) in (1..).zip(counts.iter().zip(RUNS)) {
            let right = within(f64::from(*count), low.into(), high.into());
            ensure!(right, "{count} runs of {length} bits of value {kind}");
        }
    }
    Ok(())
}

fn within(value: f64, low: f64, high: f64) -> bool {
    let (middle, half) = (f64::midpoint(low, high), (high - low) / 2.0 * WIDER);
    (value - middle).abs() < half
}

fn poker(block: &[u8]) -> f64 {
    let mut counts = [0_u32; 16];
    for byte in block {
        counts[usize::from(byte >> 4)] += 1;
        counts[usize::from(byte & 0xf)] += 1;
    }
    let squares: f64 = counts.iter().map(|&count| f64::from(count).powi(2)).sum();
    16.0 / 5000.0 * squares - 5000.0
}

/// The runs of zeros and of ones, by their lengths, and the longest.
fn runs(block: &[u8]) -> ([[u32; 6]; 2], usize) {
    let bits = block.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1));
    let bits: Vec<u8> = bits.collect();
    let mut runs = [[0; 6]; 2];
    let mut longest = 0;
    for run in bits.chunk_by(|a, b| a == b) {
        longest = longest.max(run.len());
        runs[usize::from(run[0])][run.len().min(6) - 1] += 1;
    }
    (runs, longest)
}
