# A port that somebody else holds is said before the machine starts.
#
# vagrant-libvirt forwards with ssh in the background, whose failure nobody sees: JupyterLab
# would seem dead while another program answers in its place.
require "socket"
require "vagrant"

module LabPorts
  class Taken < Vagrant::Errors::VagrantError
    def initialize(ports)
      @ports = ports
      super()
    end

    def error_message
      "The lab forwards these ports of 127.0.0.1, and another program holds them: #{@ports.join(", ")}.\n" \
        "Stop it (`make down`, if it is the lab of `make lab`), or choose others:\n" \
        "    LAB_PORT=8899 LAB_PUBLISH_PORT=9080 vagrant up"
    end
  end

  module_function

  def taken(ports)
    ports.reject do |port|
      TCPServer.new("127.0.0.1", port).close
      true
    rescue Errno::EADDRINUSE, Errno::EACCES
      false
    end
  end

  def trigger(config, ports)
    config.trigger.before :up do |t|
      t.ruby do |_env, machine|
        held = machine.state.id == :running ? [] : taken(ports)
        raise Taken, held unless held.empty?
      end
    end
  end
end
