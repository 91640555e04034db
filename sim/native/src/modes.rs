//! In which mode policies are enforced, in the words of scenarios, of the oracle and of agents.

use agent_control::PolicyConfig;
use sim_scenario::model;

/// As the oracle is told.
pub(crate) const fn of_oracle(mode: model::Enforcement) -> sim_oracle::Enforcement {
    match mode {
        model::Enforcement::Default => sim_oracle::Enforcement::Default,
        model::Enforcement::Always => sim_oracle::Enforcement::Always,
        model::Enforcement::Never => sim_oracle::Enforcement::Never,
    }
}

/// Agents are told the same as an oracle with these options.
pub(crate) fn tell(config: &mut PolicyConfig, options: sim_oracle::Options) {
    config.host_firewall = options.host_policies;
    config.engine.audit = options.audit;
    config.engine.enforcement = match options.enforcement {
        sim_oracle::Enforcement::Default => agent_control::Enforcement::Default,
        sim_oracle::Enforcement::Always => agent_control::Enforcement::Always,
        sim_oracle::Enforcement::Never => agent_control::Enforcement::Never,
    };
}
