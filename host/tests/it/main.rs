//! Whole-host tests: one binary, so that it links once.

mod applied;
mod file;
mod fuzz;

mod kill;
mod mosquitto;
mod mqtt;
mod outside;
mod path;
mod resources;
mod site;
mod status;
mod store;
mod tidy;
