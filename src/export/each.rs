//! The combinations of params of which a schedule asks for a run each, and how params are compared.

use serde_json::{Map, Value as Json};

use super::Export;
use crate::job::key;

impl Export {
    /// The params of each run that is asked for at one time: every combination of the schedule's
    /// `for-each`, but for the params that are `fixed`, which all of them have. One, where there is
    /// nothing to combine.
    pub fn combinations(&self, fixed: &Map<String, Json>) -> Vec<Map<String, Json>> {
        let mut all = vec![fixed.clone()];
        let each = self.schedule.iter().flat_map(|schedule| &schedule.for_each);
        for (name, values) in each.filter(|(name, _)| !fixed.contains_key(*name)) {
            let with = |params: &Map<String, Json>, value: &Json| {
                let mut params = params.clone();
                params.insert(name.clone(), value.clone());
                params
            };
            all = all
                .iter()
                .flat_map(|params| values.iter().map(move |value| with(params, value)))
                .collect();
        }
        all
    }

    /// Whether its schedule asks for more than one run at a time.
    pub fn has_each(&self) -> bool {
        self.schedule.as_ref().is_some_and(|schedule| !schedule.for_each.is_empty())
    }

    /// The params that a job gave, in the form in which two jobs are compared: those that equal their
    /// default are left out. What the export does not take stays as it is.
    pub fn alike(&self, given: &Map<String, Json>) -> String {
        match self.bindings(given) {
            Ok(params) => key::of_params(&self.params, &params),
            Err(_) => Json::Object(given.clone()).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn export(for_each: Json) -> Export {
        serde_json::from_value(json!({
            "params": {
                "country": {"type": "string", "default": "NO"},
                "top": {"type": "int64", "default": 10},
            },
            "schedule": {"cron": "0 4 * * *", "for-each": for_each},
            "source": {"connection": "shop", "table": "orders"},
            "sink": {"connection": "lake", "path": "orders"},
        }))
        .unwrap()
    }

    fn given(json: Json) -> Map<String, Json> {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn every_combination_is_there_once() {
        let none = Map::new();
        assert_eq!(export(json!({})).combinations(&none), [Map::new()]);
        let export = export(json!({"country": ["NO", "SE"], "top": [1, 2, 3]}));
        let all = export.combinations(&none);
        assert_eq!(all.len(), 6);
        assert_eq!(all[0], given(json!({"country": "NO", "top": 1})));
        assert_eq!(all[5], given(json!({"country": "SE", "top": 3})));
        let fixed = given(json!({"country": "DK"}));
        let some = export.combinations(&fixed);
        assert_eq!(some.len(), 3);
        assert!(some.iter().all(|params| params["country"] == "DK"), "{some:?}");
    }

    #[test]
    fn params_are_alike_where_their_keys_are() {
        let export = export(json!({}));
        let alike = |json: Json| export.alike(&given(json));
        assert_eq!(alike(json!({})), alike(json!({"country": "NO", "top": 10})));
        assert_eq!(alike(json!({"country": "SE"})), alike(json!({"top": 10, "country": "SE"})));
        assert_ne!(alike(json!({})), alike(json!({"country": "SE"})));
        // What an earlier revision took.
        assert_ne!(alike(json!({})), alike(json!({"region": "north"})));
    }
}
