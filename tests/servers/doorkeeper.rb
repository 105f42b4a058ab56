# Debian's ruby-doorkeeper in a Rails application without files, over http on a free port of loopback.
# The first line of stdin is JSON: {"clients": {id: secret}, "scopes": [...], "lifetime": seconds, "reuse": whether an
# access token that is still valid is issued again}. Prints its port when it is ready; ends when stdin does.

require "json"
require "logger"
require "rails"
require "active_record"
require "action_controller/railtie"
require "doorkeeper"
require "puma"

options = JSON.parse($stdin.gets)

class Application < Rails::Application
  config.eager_load = false
  config.logger = Logger.new($stderr, level: Logger::WARN)
  config.secret_key_base = "of no use"
  config.hosts.clear
end

ActiveRecord::Base.establish_connection(adapter: "sqlite3", database: ":memory:", pool: 1)
Rails.application.initialize!

ActiveRecord::Migration.suppress_messages do
  ActiveRecord::Schema.define do
    create_table :oauth_applications do |table|
      table.string :name, :uid, :secret, null: false
      table.text :redirect_uri
      table.string :scopes, null: false, default: ""
      table.boolean :confidential, null: false, default: true
      table.timestamps null: false
    end
    create_table :oauth_access_tokens do |table|
      table.references :resource_owner, index: true
      table.references :application, null: false
      table.string :token, null: false
      table.string :refresh_token, :scopes
      table.integer :expires_in
      table.datetime :revoked_at
      table.datetime :created_at, null: false
      table.string :previous_refresh_token, null: false, default: ""
    end
  end
end

Doorkeeper.configure do
  orm :active_record
  grant_flows %w[client_credentials]
  optional_scopes(*options["scopes"])
  access_token_expires_in options["lifetime"]
  allow_blank_redirect_uri true
  reuse_access_token if options["reuse"]
end
Rails.application.routes.draw { use_doorkeeper { skip_controllers :applications, :authorizations } }

options["clients"].each do |id, secret|
  Doorkeeper::Application.create!(name: id, uid: id, secret: secret, scopes: options["scopes"].join(" "))
end

ActiveRecord::Base.clear_active_connections! # the database is that of the one connection

server = Puma::Server.new(Rails.application, Puma::Events.new($stderr, $stderr), min_threads: 1, max_threads: 1)
port = server.add_tcp_listener("127.0.0.1", 0).addr[1]
server.run
puts port
$stdout.flush
$stdin.read
exit!
