//! Merging a chain of differences: of every page the latest.

use std::io;
use std::ops::Range;

use kedge_ids::usize_from;

use super::{CHUNK, Image, ImageError, ImageWriter, MemoryMap};

/// Why images cannot be merged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    #[error("memory file {index} cannot be read")]
    Read { index: usize, source: ImageError },
    #[error("the merged memory file cannot be written")]
    Write(#[source] io::Error),
}

/// A piece of the merged image and which of the images it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    extent: Range<u64>,
    image: usize,
}

/// Writes `images` to `to`, each over those before it.
pub(crate) fn merge(images: &[&Image], to: &mut ImageWriter<'_>) -> Result<(), MergeError> {
    let mut pieces = Vec::new();
    for (index, image) in images.iter().enumerate() {
        let map = image.map().map_err(|source| MergeError::Read { index, source })?;
        pieces = overlay(pieces, &map, index);
    }
    let mut buffer = vec![0; usize_from(CHUNK)];
    for Piece { extent, image: index } in pieces {
        let mut written = Ok(());
        let read = images[index].each_piece(extent, &mut buffer, |offset, bytes| {
            if written.is_ok() {
                written = to.write(offset, bytes);
            }
        });
        read.map_err(|source| MergeError::Read { index, source })?;
        written.map_err(MergeError::Write)?;
    }
    Ok(())
}

/// `map`'s extents, from `image`, over what is `below`; in order.
fn overlay(below: Vec<Piece>, map: &MemoryMap, image: usize) -> Vec<Piece> {
    let above = map.extents();
    let mut pieces: Vec<_> =
        above.iter().map(|extent| Piece { extent: extent.clone(), image }).collect();
    for Piece { extent, image } in below {
        let mut start = extent.start;
        let first = above.partition_point(|over| over.end <= extent.start);
        for over in above[first..].iter().take_while(|over| over.start < extent.end) {
            if start < over.start {
                pieces.push(Piece { extent: start..over.start, image });
            }
            start = over.end;
        }
        if start < extent.end {
            pieces.push(Piece { extent: start..extent.end, image });
        }
    }
    pieces.sort_by_key(|piece| piece.extent.start);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(extents: &[(u64, u64)]) -> MemoryMap {
        let mut map = MemoryMap::default();
        extents.iter().for_each(|&(start, end)| map.push(start..end));
        map
    }

    fn pieces(maps: &[&[(u64, u64)]]) -> Vec<(u64, u64, usize)> {
        let merged = maps
            .iter()
            .enumerate()
            .fold(Vec::new(), |below, (index, extents)| overlay(below, &map(extents), index));
        merged
            .into_iter()
            .map(|piece| (piece.extent.start, piece.extent.end, piece.image))
            .collect()
    }

    #[test]
    fn what_is_above_hides_what_is_below() {
        assert_eq!(
            pieces(&[&[(0, 100)], &[(20, 30), (90, 120)]]),
            [(0, 20, 0), (20, 30, 1), (30, 90, 0), (90, 120, 1)]
        );
    }

    #[test]
    fn what_is_below_shows_where_nothing_is_above() {
        assert_eq!(
            pieces(&[&[(10, 20), (30, 40)], &[], &[(0, 5), (35, 60)]]),
            [(0, 5, 2), (10, 20, 0), (30, 35, 0), (35, 60, 2)]
        );
    }

    #[test]
    fn one_above_can_hide_many() {
        assert_eq!(pieces(&[&[(10, 20), (30, 40)], &[(15, 16)], &[(0, 100)]]), [(0, 100, 2)]);
    }
}
