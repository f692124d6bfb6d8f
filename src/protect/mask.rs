//! Masks: all but the last characters are hidden.

use arrow::array::{Array, StringArray, StringBuilder};

/// All but the last `keep` characters as `*`; a text of twice as many or fewer is masked whole.
pub(super) fn mask(values: &StringArray, keep: usize) -> StringArray {
    let mut masked = StringBuilder::with_capacity(values.len(), values.value_data().len());
    let mut text = String::new();
    for value in values {
        let Some(value) = value else {
            masked.append_null();
            continue;
        };
        let count = value.chars().count();
        let hidden = if count <= keep.saturating_mul(2) { count } else { count - keep };
        text.clear();
        text.extend(std::iter::repeat_n('*', hidden));
        text.extend(value.chars().skip(hidden));
        masked.append_value(&text);
    }
    masked.finish()
}
