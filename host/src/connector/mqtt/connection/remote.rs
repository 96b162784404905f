//! `Remote`: where a broker is and how it is reached; opens transports to it. Knows
//! nothing of what is said there.

use std::{path::Path, sync::Arc};

use tokio::{net::TcpStream, task};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    socket::Socket,
    transport::{Layer, Transport},
    web::WebStream,
};
use crate::{
    connector::{
        mqtt::SessionError,
        tls::{self, TlsError},
    },
    resource::endpoint::{MqttSettings, Protocol, Tls},
};

/// See the module.
#[derive(Clone, Debug)]
pub struct Remote {
    /// `host:port`.
    pub address: String,
    /// Its files are read anew for each connection.
    pub tls: Option<Tls>,
    pub protocol: Protocol,
}

impl Remote {
    /// In the clear.
    pub fn plain(address: String) -> Self {
        Remote { address, tls: None, protocol: Protocol::Mqtt }
    }

    /// Where an endpoint says, with its files looked for below the site folder.
    pub fn of(settings: &MqttSettings, home: &Path) -> Self {
        let tls = settings.tls.as_ref().map(|it| it.below(home));
        Remote { address: settings.address.clone(), tls, protocol: settings.protocol }
    }

    pub(super) async fn dial(&self) -> Result<Transport, SessionError> {
        match (&self.tls, self.protocol) {
            (None, Protocol::Mqtt) => Ok(Transport::Plain(self.socket().await?)),
            // Apart, or those in the clear would take as much memory.
            (None, Protocol::WebSockets) => {
                Box::pin(async { self.layered(self.socket().await?).await }).await
            }
            (Some(tls), _) => Box::pin(async { self.layered(self.encrypted(tls).await?).await }).await,
        }
    }

    async fn socket(&self) -> Result<Socket, SessionError> {
        let stream = TcpStream::connect(&self.address).await.map_err(SessionError::Io)?;
        stream.set_nodelay(true).map_err(SessionError::Io)?;
        Ok(Socket::new(stream))
    }

    async fn layered(&self, layer: impl Layer + 'static) -> Result<Transport, SessionError> {
        match self.protocol {
            Protocol::Mqtt => Ok(Transport::layered(layer)),
            Protocol::WebSockets => Ok(Transport::layered(WebStream::open(&self.address, layer).await?)),
        }
    }

    async fn encrypted(&self, tls: &Tls) -> Result<TlsStream<Socket>, SessionError> {
        let name = tls::server_name(&self.address)?;
        let tls = tls.clone();
        let client = task::spawn_blocking(move || tls::client(&tls)).await;
        let client = client.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        let socket = self.socket().await?;
        let stream = TlsConnector::from(Arc::new(client)).connect(name, socket).await;
        Ok(stream.map_err(TlsError::Handshake)?)
    }
}
