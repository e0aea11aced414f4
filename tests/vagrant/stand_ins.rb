# Test data: stand-ins for the provider plugins that cannot be installed everywhere.
#
# Placed as $VAGRANT_HOME/Vagrantfile it is read before the project's.  A plugin that is
# missing makes `vagrant validate` accept any setting of its provider; a stand-in knows the
# names of the settings that the real one has, and vagrant reports every other.
#
# The names: lib/vagrant-parallels/config.rb and lib/vagrant-qemu/config.rb of the plugins.
module StandIns
  SETTINGS = {
    parallels: %i[
      check_guest_additions check_guest_tools cpus destroy_unused_network_interfaces functional_psf
      linked_clone linked_clone_snapshot memory name optimize_power_consumption regen_src_uuid
      update_guest_tools
    ],
    qemu: %i[
      arch control_port cpu debug_port disk_resize drive_interface extra_drive_args extra_image_opts
      extra_netdev_args extra_qemu_args firmware_format image_path machine memory net_device
      no_daemonize numactl_args other_default qemu_bin qemu_dir smp ssh_auto_correct ssh_host ssh_port
    ],
  }

  class Settings < Vagrant.plugin("2", :config)
    # Vagrant's base class remembers assignments to names that the class lacks.
    def validate(_machine)
      { self.class.name => _detected_errors }
    end
  end

  class NoMachine < Vagrant.plugin("2", :provider)
    def self.usable?(_raise = false)
      true
    end

    def initialize(_machine); end

    # Doing nothing, so that the triggers around it can be tried.
    def action(_name)
      Vagrant::Action::Builder.new
    end

    def state
      Vagrant::MachineState.new(:not_created, "not created", "a stand-in has no machine")
    end
  end

  class Folder < Vagrant.plugin("2", :synced_folder)
    def usable?(_machine, _raise = false)
      true
    end
  end

  SETTINGS.each do |provider, names|
    settings = const_set("#{provider.capitalize}Settings", Class.new(Settings) { attr_accessor(*names) })
    machine = const_set("#{provider.capitalize}Machine", Class.new(NoMachine))
    const_set("#{provider.capitalize}Plugin", Class.new(Vagrant.plugin("2")) do
      name "stand-in for #{provider}"
      config(provider, :provider) { settings }
      provider(provider) { machine }
      synced_folder(provider) { Folder }
    end)
  end
end
