//! The CPU accelerator as a plugin file.

ds_plugin::export_plugin!(ds_accelerator_cpu::Cpu, "org.deepspeed.cpu");
