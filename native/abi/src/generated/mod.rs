pub mod cpu;
pub mod ring;
pub mod table;
