//! Kernel releases as Debian names them (`6.12.107+deb13-arm64-16k`): which of them a label stands for, and their order.

use crate::host::PageSize;

/// The part of a package's name that every kernel package of this project's interest starts with.
pub(super) const IMAGE: &str = "linux-image-";

/// The newest release first among those that `names` of packages offer, of the flavour with this page size, whose
/// version starts with `label`.
pub(super) fn of_label(names: &[String], label: &str, page_size: PageSize) -> Vec<String> {
    newest_first(names, page_size, |version| {
        version
            .strip_prefix(label)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
    })
}

/// The same for releases later than any of `label`, the nearest series first.
pub(super) fn after_label(names: &[String], label: &str, page_size: PageSize) -> Vec<String> {
    let limit = numbers(label);
    let mut later = newest_first(names, page_size, |version| {
        let version = numbers(version);
        version.get(..limit.len()).is_some_and(|series| series > limit.as_slice())
    });
    later.sort_by_key(|release| numbers(release).get(..limit.len()).map(<[u64]>::to_vec));
    later
}

fn newest_first(
    names: &[String],
    page_size: PageSize,
    wanted: impl Fn(&str) -> bool,
) -> Vec<String> {
    let flavour = match page_size {
        PageSize::K4 => "-arm64",
        PageSize::K16 => "-arm64-16k",
    };
    let mut releases: Vec<String> = names
        .iter()
        // A foreign architecture's packages are listed with its name.
        .map(|name| name.split(':').next().unwrap_or(name))
        .filter_map(|name| name.strip_prefix(IMAGE))
        .filter(|release| release.strip_suffix(flavour).and_then(version).is_some_and(&wanted))
        .map(str::to_owned)
        .collect();
    releases.sort_by_key(|release| std::cmp::Reverse(numbers(release)));
    releases.dedup();
    releases
}

/// `6.12.107` of `6.12.107+deb13`, and `6.1.0-50` of itself; nothing for `6.12.107+deb13-cloud` or `6.12`'s meta packages.
fn version(release: &str) -> Option<&str> {
    let (version, suffix) = release.split_once('+').unwrap_or((release, ""));
    let plain = version.starts_with(|first: char| first.is_ascii_digit())
        && version.chars().all(|each| each.is_ascii_digit() || each == '.' || each == '-');
    (plain && !suffix.contains('-')).then_some(version)
}

fn numbers(text: &str) -> Vec<u64> {
    let digits = text.split(|each: char| !each.is_ascii_digit());
    digits.filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|name| format!("{IMAGE}{name}")).collect()
    }

    #[test]
    fn the_newest_release_of_a_label_comes_first_by_number_not_by_letter() {
        let names = names(&["6.12.94+deb13-arm64", "6.12.107+deb13-arm64", "6.12.9+deb13-arm64"]);
        let found = of_label(&names, "6.12", PageSize::K4);
        assert_eq!(found, ["6.12.107+deb13-arm64", "6.12.94+deb13-arm64", "6.12.9+deb13-arm64"]);
    }

    #[test]
    fn cloud_and_real_time_flavours_and_other_page_sizes_are_not_the_plain_kernel() {
        let names = names(&[
            "6.12.107+deb13-cloud-arm64",
            "6.12.107+deb13-rt-arm64",
            "6.12.107+deb13-arm64-16k",
            "6.1.0-50-rt-arm64",
        ]);
        assert!(of_label(&names, "6.12", PageSize::K4).is_empty());
        assert!(of_label(&names, "6.1", PageSize::K4).is_empty());
    }

    #[test]
    fn kernels_with_16_kib_pages_are_a_flavour_of_their_own() {
        let names = names(&["6.12.107+deb13-arm64", "6.12.107+deb13-arm64-16k"]);
        assert_eq!(of_label(&names, "6.12", PageSize::K16), ["6.12.107+deb13-arm64-16k"]);
    }

    #[test]
    fn a_label_is_not_the_start_of_a_longer_number() {
        let names = names(&["6.12.107+deb13-arm64", "6.1.0-50-arm64", "6.1.0-7-arm64"]);
        assert_eq!(of_label(&names, "6.1", PageSize::K4), ["6.1.0-50-arm64", "6.1.0-7-arm64"]);
    }

    #[test]
    fn where_a_label_is_gone_the_newest_of_the_next_series_takes_its_place() {
        let names = names(&[
            "7.1.9+deb14-arm64",
            "7.4.1+deb14-arm64",
            "7.3.2+deb14-arm64",
            "7.3.10+deb14-arm64",
        ]);
        let found = after_label(&names, "7.2", PageSize::K4);
        assert_eq!(found, ["7.3.10+deb14-arm64", "7.3.2+deb14-arm64", "7.4.1+deb14-arm64"]);
    }
}
